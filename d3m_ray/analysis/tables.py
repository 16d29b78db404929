"""The rows of an experiment's trials, and tables as CSV."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from d3m_ray.analysis.results import newest_trials
from d3m_ray.metrics import CELL_SEPARATOR, SUMMARY_GROUPS
from d3m_ray.store import Store, StoreError

REFERENCE_METHOD = "random"


def read_trials(store: Store, experiment: str, split: str = "test") -> pd.DataFrame:
    """The rows of an experiment's trials in one split, sorted by method, num_removed, seed.

    Where a (method, num_removed, seed) was run more than once, the newest counts. Raises StoreError where the
    experiment has no trial.
    """
    trials = store.read_all("trials", filters=[("experiment", "==", experiment), ("split", "==", split)])
    if trials.empty:
        known = sorted(store.read_all("trials", columns=["experiment"])["experiment"].unique())
        raise StoreError(f"{store} holds no {split} trial of {experiment!r}; it has trials of {known}")
    return newest_trials(trials).sort_values(["method", "num_removed", "seed", "group"], ignore_index=True)


def identity_names(groups: Collection[str]) -> list[str]:
    """The identities among the groups of the trials table, sorted; neither their cells nor the summary rows."""
    cells = {group for group in groups if any(group.startswith(f"{other}{CELL_SEPARATOR}") for other in groups)}
    return sorted(set(groups) - cells - set(SUMMARY_GROUPS))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, the folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
