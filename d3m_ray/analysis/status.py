"""What of each experiment is planned, done, failed and missing."""

from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from d3m_ray.store import Experiment, PlannedTrial, Store, StoreError

STATES = ("done", "failed", "missing")


def experiment_status(store: Store, experiment: Experiment) -> pd.DataFrame:
    """One row per planned trial: `method`, `num_removed` (Int64), `seed`, `state` (one of `STATES`), `error`.

    Where the selection rule decides how many are removed, `num_removed` is missing. `error` is the first line of a
    failed trial's error, else empty. A stored trial that no plan names is listed as done.
    """
    ours = [("experiment", "==", experiment.name)]
    identity = ["method", "num_removed", "seed"]
    planned = set(experiment.plan)

    def as_planned(method: str, num_removed: int | None, seed: int) -> PlannedTrial:
        trial = PlannedTrial(method, None if pd.isna(num_removed) else num_removed, seed)
        by_rule = trial._replace(num_removed=None)  # stored under the number that the rule came to
        return by_rule if trial not in planned and by_rule in planned else trial

    trials = store.read_all("trials", columns=identity, filters=ours).drop_duplicates()
    failures = store.read_all("failures", columns=[*identity, "error"], filters=ours)
    done = {as_planned(*trial) for trial in trials.itertuples(index=False)}
    errors = {as_planned(*trial): error for *trial, error in failures.itertuples(index=False)}
    rows = []
    for trial in [*experiment.plan, *sorted(done - planned)]:
        state = "done" if trial in done else "failed" if trial in errors else "missing"
        error = errors[trial].strip().partition("\n")[0] if state == "failed" else ""
        rows.append((*trial, state, error))
    return pd.DataFrame(rows, columns=[*identity, "state", "error"]).astype({"num_removed": "Int64"})


def render_status(store: Store) -> Group:
    """Every experiment's status for the terminal. Raises StoreError where the store holds no experiment."""
    experiments = store.read_experiments()
    if not experiments:
        raise StoreError(f"{store} holds no experiment; name the folder that a sweep was given as --store")
    return Group(*(part for e in experiments.values() for part in _render(e, experiment_status(store, e))))


def _render(experiment: Experiment, status: pd.DataFrame) -> list[Table | Text]:
    counts = status["state"].value_counts().reindex(STATES, fill_value=0)
    parts: list[Table | Text] = [
        Text.assemble((experiment.name, "bold"), f"  {_dataset_and_model(experiment)}"),
        Text(f"{len(status)} trials: " + ", ".join(f"{count} {state}" for state, count in counts.items())),
        _counts_table(status),
    ]
    for row in status[status["state"] == "failed"].itertuples(index=False):
        removed = _removed_label(row.num_removed)
        line = f"failed: {row.method}, removed {removed}, seed {row.seed}: {row.error}"
        parts.append(Text(line, style="red", no_wrap=True, overflow="ignore"))
    return [*parts, Text("")]


def _dataset_and_model(experiment: Experiment) -> str:
    return f"{experiment.configuration['dataset']}, {experiment.configuration['model']}"


def _counts_table(status: pd.DataFrame) -> Table:
    """Seeds done of seeds planned, one row per number removed and one column per method."""
    methods = list(dict.fromkeys(status["method"]))
    table = Table("removed", *methods, box=SIMPLE_HEAD)
    for column in table.columns:
        column.justify = "right"
    for num_removed, rows in status.groupby("num_removed", dropna=False):
        table.add_row(_removed_label(num_removed), *(_count(rows[rows["method"] == method]) for method in methods))
    return table


def _removed_label(num_removed: Any) -> str:
    return "by rule" if pd.isna(num_removed) else f"{num_removed:,}"


def _count(rows: pd.DataFrame) -> Text:
    if rows.empty:
        return Text("")
    num_done, num_failed = ((rows["state"] == state).sum() for state in ("done", "failed"))
    style = "red" if num_failed else "green" if num_done == len(rows) else "yellow"
    failed = f", {num_failed} failed" if num_failed else ""
    return Text(f"{num_done}/{len(rows)}{failed}", style=style)
