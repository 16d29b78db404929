"""The rows of an experiment's trials, and tables as CSV."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from d3m_ray.analysis.results import newest_trials
from d3m_ray.metrics import CELL_SEPARATOR
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


def identity_names(rows: Iterable[str], label_names: Collection[str] = ()) -> list[str]:
    """The identities among the groups of the trials table, sorted; neither their cells nor the summary rows.

    They are the rows that have cells, whatever slashes their names hold: `metrics.group_metrics` refuses names by which
    a cell would be another row. Without the labels' names, as of a damaged record, a row is taken to have cells where
    another begins with its name and a slash.
    """
    found = set(rows)
    if label_names:
        return sorted(row for row in found if any(f"{row}{CELL_SEPARATOR}{name}" in found for name in label_names))
    ends = ((row, place) for row in found for place, letter in enumerate(row) if letter == CELL_SEPARATOR)
    return sorted(found & {row[:place] for row, place in ends})


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, the folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)
