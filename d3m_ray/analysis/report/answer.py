"""The answer that a page gives first: the headline sentence, its details, and what speaks against it."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from d3m_ray.analysis.caveats import find_caveats
from d3m_ray.analysis.headline import headline
from d3m_ray.analysis.lds import KINDS, STUDY, as_percent, lds_remarks, leading_kind, mean_lds
from d3m_ray.analysis.report.setting import is_lds, warnings
from d3m_ray.analysis.results import Results


@dataclass(frozen=True)
class Answer:
    """What an experiment found, in words."""

    sentence: str
    details: Sequence[str]
    """A sentence on each arm."""
    caveats: Sequence[str]
    """What speaks against reading more into it."""
    kind: str
    """As `headline.Headline` has it; `lds` of an LDS."""


def answer_of(results: Results) -> Answer:
    """The headline of an experiment, or, of an LDS, which method predicts retraining best."""
    if is_lds(results):
        return Answer(_lds_sentence(results), lds_remarks(results), warnings(results), "lds")
    found = headline(results)
    against = [caveat.sentence for caveat in find_caveats(results)]
    details = [detail for detail in found.details if detail not in against]
    return Answer(found.sentence, details, list(dict.fromkeys([*warnings(results), *against])), found.kind)


def _lds_sentence(results: Results) -> str:
    kind = leading_kind(results.lds)
    rows = mean_lds(results.lds)
    rows = rows[rows["kind"] == kind].sort_values("lds", ascending=False)
    if rows.empty:
        return "No conclusion: scores or outcomes are all alike, so no correlation is defined."
    of_studies = [
        f"over {of['num_subsets'].max():,} subsets that keep {as_percent(share)} of train"
        f"{', with the seeds of the base models' if seeds == 'base' else ''}: "
        + "; ".join(_lds_of(row) for row in of.to_dict("records"))
        for (seeds, share), of in rows.groupby(STUDY)
    ]
    return (
        f"Mean LDS {KINDS[kind]}, highest first, with its 95% bootstrap interval over subsets, {'. '.join(of_studies)}."
    )


def _lds_of(row: Mapping[Hashable, Any]) -> str:
    bounds = "" if pd.isna(row["lds_low"]) else f" ({row['lds_low']:.2f} to {row['lds_high']:.2f})"
    return f"{row['method']} {row['lds']:.2f}{bounds}"
