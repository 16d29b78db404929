"""The page that compares the experiments of a store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import pandas as pd

from d3m_ray.analysis.report.answer import answer_of
from d3m_ray.analysis.report.cells import Column, TableView, table_view
from d3m_ray.analysis.report.gaps import TrialCounts, progress_of, states_of
from d3m_ray.analysis.report.rendering import render
from d3m_ray.analysis.report.setting import written
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.status import differing_settings
from d3m_ray.version import __version__


@dataclass(frozen=True)
class Entry:
    """One experiment, in short."""

    name: str
    href: str
    dataset: str
    model: str
    begun: str
    headline: str
    progress: TrialCounts


def index_page(
    experiments: Sequence[Results],
    hrefs: Mapping[str, str],
    damaged: Sequence[str] = (),
    headlines: Mapping[str, str] | None = None,
) -> str:
    """The experiments of a store beside each other: headline, a link to each page, settings in which they differ.

    `hrefs` are the relative addresses of the pages by the experiments' names. `damaged` are the sentences about damaged
    files. `headlines` are by name what is known of them; the others are found again.
    """
    known = headlines or {}
    entries = [_entry(results, hrefs[results.name], known.get(results.name)) for results in experiments]
    return render(
        "index.html.j2",
        store=str(experiments[0].store) if experiments else "",
        entries=entries,
        settings=_settings_table(experiments),
        damaged=list(dict.fromkeys(damaged)),
        version=__version__,
    )


def _entry(results: Results, href: str, headline: str | None) -> Entry:
    begun = results.record.created_at
    return Entry(
        name=results.name,
        href=quote(href),
        dataset=str(results.configuration["dataset"]),
        model=str(results.configuration["model"]),
        begun=begun[:10] if begun else "on a day not known",
        headline=answer_of(results).sentence if headline is None else headline,
        progress=progress_of(states_of(results)),
    )


def _settings_table(experiments: Sequence[Results]) -> TableView:
    """One row per experiment, one column per setting in which they differ."""
    differing = differing_settings([results.record for results in experiments])
    rows = [
        {"experiment": name, **{setting: written(value) for setting, value in settings.items()}}
        for name, settings in differing.items()
    ]
    named = [Column("experiment", "experiment", "The experiment's name in the store.", is_number=False)]
    shown = [
        Column(setting, setting, f"The setting {setting}, as the experiment's record has it.", is_number=False)
        for setting in (list(rows[0])[1:] if rows else ())
    ]
    frame = pd.DataFrame(rows) if shown else None
    return table_view(
        "settings",
        "Settings in which they differ",
        "One row per experiment; settings that all share are on their pages.",
        frame,
        [*named, *shown],
        "The experiments of this store differ in no recorded setting but their corpus and model.",
    )
