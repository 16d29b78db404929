"""What an experiment lacks: trials that failed or are missing, tables that are not stored, files that are damaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from d3m_ray.analysis.results import Results
from d3m_ray.analysis.status import STATES, trial_states

MAX_NAMED = 8  # trials or names in one line of the page
BY_RULE = "by rule"


@dataclass(frozen=True)
class TrialCounts:
    """How many of the planned trials are in each state."""

    num_done: int
    num_failed: int
    num_missing: int

    @property
    def num_planned(self) -> int:
        return self.num_done + self.num_failed + self.num_missing


def states_of(results: Results) -> pd.DataFrame:
    """One row per planned or stored trial, as `status.trial_states` gives them."""
    return trial_states(results.record.plan, results.fits, results.failures)


def progress_of(states: pd.DataFrame) -> TrialCounts:
    """The counts of the states."""
    counts = states["state"].value_counts().reindex(STATES, fill_value=0)
    return TrialCounts(*(int(counts[state]) for state in STATES))


def failed_by_reason(states: pd.DataFrame) -> pd.DataFrame:
    """One row per reason, the most frequent first: `error`, `num_trials`, `trials` (some of them, named)."""
    failed = states[states["state"] == "failed"]
    rows = [
        {"error": error, "num_trials": len(of_error), "trials": _named(of_error)}
        for error, of_error in failed.groupby("error", sort=False)
    ]
    return pd.DataFrame(rows).sort_values("num_trials", ascending=False, kind="stable") if rows else pd.DataFrame()


def missing_by_arm(states: pd.DataFrame) -> pd.DataFrame:
    """One row per arm that lacks trials: `method`, `removed` (text), `num_missing`, `num_trials`, `seeds`."""
    rows = []
    for (method, num_removed), of_arm in states.groupby(["method", "num_removed"], dropna=False, sort=False):
        missing = of_arm[of_arm["state"] == "missing"]
        if len(missing):
            rows.append(
                {
                    "method": method,
                    "removed": _removed(num_removed),
                    "num_missing": len(missing),
                    "num_trials": len(of_arm),
                    "seeds": _few([str(seed) for seed in sorted(missing["seed"])]),
                }
            )
    return pd.DataFrame(rows)


def absent_tables(results: Results) -> list[str]:
    """A sentence for each part of the experiment that the store does not hold, and what the page lacks for it."""
    asked_for = {table: results.record.keys.get(table, {}) for table in ("scores", "alignments")}
    found = []
    if results.fits.empty:
        found.append("No trial is stored: there is no result to compare.")
    if results.examples.empty:
        found.append(
            "The corpus is not stored (table examples): no texts, and no sizes of groups in train. The same sweep, run "
            "again, stores it."
        )
    for table, stored in (("scores", results.scores), ("alignments", results.alignments)):
        lacking = [name for name in asked_for[table] if name not in stored]
        if lacking:
            found.append(f"The {table} of {_few(lacking)} are not stored: the page says nothing of them.")
    removing = results.arm_fits["num_removed"].gt(0).sum()
    if removing and results.removed_cells.empty:
        found.append("What the trials removed is not stored (table removals): no table of it.")
    if len(results.arm_fits) and results.answers is None:
        found.append("What the models answer is not stored (table fits): no interval covers the test examples.")
    if not results.record.plan:
        found.append("The experiment has no record of its plan: which trials are missing is not known.")
    return found


def _named(trials: pd.DataFrame) -> str:
    names = [f"{t.method}, {_removed(t.num_removed)} removed, seed {t.seed}" for t in trials.itertuples(index=False)]
    return _few(names, "; ")


def _removed(num_removed: Any) -> str:
    return BY_RULE if pd.isna(num_removed) else f"{num_removed:,}"


def _few(names: Sequence[str], separator: str = ", ") -> str:
    more = len(names) - MAX_NAMED
    return separator.join(names[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")
