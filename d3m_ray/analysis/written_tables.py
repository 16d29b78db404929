"""The tables that are written as CSV, by the names of their files, and a guide to their columns."""

import re
from collections.abc import Mapping

import pandas as pd

from d3m_ray.analysis.agreement import agreement_table
from d3m_ray.analysis.comparison import base_table, comparison_table, removed_table
from d3m_ray.analysis.contrasts import contrast_table, declared_table
from d3m_ray.analysis.corpus import distribution_table
from d3m_ray.analysis.lds import lds_differences, lds_table
from d3m_ray.analysis.leaderboard import leaderboard_table
from d3m_ray.analysis.removal_effects import effect_table
from d3m_ray.analysis.report.columns import known_columns
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.score_tables import mean_alignments, mean_scores, score_ranges
from d3m_ray.analysis.summary import summary_table
from d3m_ray.analysis.worst_group import group_table, worst_group_table

UNITS = (
    "In these files accuracies, shares and differences of accuracies are between 0 and 1: a percentage point is 0.01. "
    "Losses are in nats, times in seconds."
)
ON_THE_PAGE = re.compile("[,;]? in percentage points")
SUFFIXES = {
    "_t_low": "Lower end of the 95% Student t interval of {} over seeds.",
    "_t_high": "Upper end of the 95% Student t interval of {} over seeds.",
    "_boot_low": "Lower end of the 95% interval of {} that covers seeds and the finite test set.",
    "_boot_high": "Upper end of the 95% interval of {} that covers seeds and the finite test set.",
    "_p_holm": "P value of {}, adjusted by Holm for all rows that have one.",
    "_low": "Lower end of the 95% interval of {}.",
    "_high": "Upper end of the 95% interval of {}.",
    "_std": "Standard deviation of {} over seeds.",
    "_standing": "How {} stands to the best method of the table: best, within noise of it, apart, or not known.",
    "_values": "The value of {} under each seed, in the order of the seeds, blanks between.",
}


def all_tables(results: Results) -> dict[str, pd.DataFrame]:
    """By the name of its file, each table that has rows."""
    tables = {
        "summary": summary_table(results),
        "declared": declared_table(results),
        "contrasts": contrast_table(results),
        "worst_groups": worst_group_table(results),
        "groups": group_table(results),
        "comparison": comparison_table(results),
        "base": base_table(results),
        "removed": removed_table(results),
        "score_ranges": score_ranges(results),
        "agreement": agreement_table(results),
        "distribution": distribution_table(results),
        "lds": lds_table(results),
        "lds_differences": lds_differences(results),
        "leaderboard": leaderboard_table(results),
        "removal_effects": effect_table(results),
        **{f"mean_scores_{name}": mean_scores(results, name).reset_index() for name in results.scores},
        **{f"mean_alignments_{name}": mean_alignments(results, name).reset_index() for name in results.alignments},
    }
    return {name: table for name, table in tables.items() if len(table)}


def column_guide(tables: Mapping[str, pd.DataFrame]) -> str:
    """What each column of the tables means, in plain text; of those with a name of the user's, nothing."""
    used = dict.fromkeys(column for table in tables.values() for column in map(str, table.columns))
    told = {name: explanation for name in used if (explanation := explained(name)) is not None}
    return "".join(f"{line}\n" for line in (UNITS, "", *(f"{name}: {text}" for name, text in told.items())))


def explained(column: str) -> str | None:
    """What a column means, None where its name says nothing to us."""
    known = known_columns()
    if column in known:
        return ON_THE_PAGE.sub("", known[column].explanation)
    for suffix, words in SUFFIXES.items():
        if column.endswith(suffix):
            return words.format(column.removesuffix(suffix))
    return None
