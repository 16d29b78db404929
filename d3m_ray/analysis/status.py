"""What of each experiment is planned, done, failed and missing."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from d3m_ray.analysis.results import TRIAL
from d3m_ray.store.experiments import Experiment, PlannedTrial
from d3m_ray.store.store import Store
from d3m_ray.wording import counted

STATES = ("done", "failed", "missing")
NAME_OF_HASH = {"data_hash": "dataset", "model_hash": "model"}  # entries of a configuration
SHOWN_ELSEWHERE = ("dataset", "model")


def experiment_status(store: Store, experiment: Experiment, say: Callable[[str], None] | None = None) -> pd.DataFrame:
    """One row per planned trial: `method`, `num_removed` (Int64), `seed`, `state` (one of `STATES`), `error`.

    Where the selection rule decides how many are removed, `num_removed` is missing. `error` is the first line of a
    failed trial's error, else empty. A stored trial that no plan names is listed as done. With `say`, damaged files are
    told and left out.
    """
    ours = [("experiment", "==", experiment.name)]
    trials = store.read_all("trials", columns=TRIAL, filters=ours, say=say).drop_duplicates()
    failures = store.read_all("failures", columns=[*TRIAL, "error"], filters=ours, say=say)
    return trial_states(experiment.plan, trials, failures)


def trial_states(plan: Sequence[PlannedTrial], trials: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """What `experiment_status` gives, of a plan and the stored trials (`TRIAL`) and failures (and `error`)."""
    planned = set(plan)

    def as_planned(method: str, num_removed: int | None, seed: int) -> PlannedTrial:
        trial = PlannedTrial(method, None if pd.isna(num_removed) else num_removed, seed)
        by_rule = trial._replace(num_removed=None)  # stored under the number that the rule came to
        return by_rule if trial not in planned and by_rule in planned else trial

    done = {as_planned(*trial) for trial in trials[TRIAL].itertuples(index=False)}
    errors = {as_planned(*trial): error for *trial, error in failures[[*TRIAL, "error"]].itertuples(index=False)}
    rows = []
    for trial in [*plan, *sorted(done - planned)]:
        state = "done" if trial in done else "failed" if trial in errors else "missing"
        error = errors[trial].strip().partition("\n")[0] if state == "failed" else ""
        rows.append((*trial, state, error))
    return pd.DataFrame(rows, columns=[*TRIAL, "state", "error"]).astype({"num_removed": "Int64"})


def render_status(store: Store, say: Callable[[str], None] | None = None) -> Group:
    """Every experiment's status for the terminal. Raises StoreError where the store holds no experiment.

    A damaged file is a StoreError too; with `say`, it is told, as often as it is met, and left out.
    """
    experiments = store.read_experiments(say)
    if not experiments:
        raise store.without_experiment()
    differing = differing_settings(list(experiments.values()))
    rendered = [_render(e, experiment_status(store, e, say), differing[e.name]) for e in experiments.values()]
    return Group(*(part for parts in rendered for part in parts))


def status_document(store: Store) -> dict[str, Any]:
    """Every experiment's status as JSON values. Raises StoreError where the store holds no experiment, and no damage.

    `experiments` are objects of `name`, `dataset`, `model`, `created_at` (ISO, null in a record of an earlier version),
    `counts` (trials by state), `trials` (objects of the columns of `experiment_status`; `error` is null but for a
    failed one), `differing_settings` and `caveats`. `damaged` is a line for each file that was left out.
    """
    damaged: dict[str, None] = {}  # each line once, in order
    experiments = store.read_experiments(damaged.setdefault)
    differing = differing_settings(list(experiments.values()))
    described = [
        _described(e, experiment_status(store, e, damaged.setdefault), differing[e.name]) for e in experiments.values()
    ]
    if not described and not damaged:
        raise store.without_experiment()
    return {"store": str(store), "experiments": described, "damaged": list(damaged)}


def _described(experiment: Experiment, status: pd.DataFrame, differing: Mapping[str, Any]) -> dict[str, Any]:
    counts = status["state"].value_counts()
    trials = [
        {
            **dict(zip(TRIAL, (method, None if pd.isna(number) else int(number), int(seed)), strict=True)),
            "state": state,
            "error": error or None,
        }
        for method, number, seed, state, error in status.itertuples(index=False, name=None)
    ]
    return {
        "name": experiment.name,
        "dataset": experiment.configuration["dataset"],
        "model": experiment.configuration["model"],
        "created_at": experiment.created_at,
        "counts": {state: int(counts.get(state, 0)) for state in STATES},
        "trials": trials,
        "differing_settings": dict(differing),
        "caveats": list(experiment.caveats),
    }


def differing_settings(experiments: Sequence[Experiment]) -> dict[str, dict[str, Any]]:
    """By experiment, the settings in which the experiments of a store differ: {"training.num_epochs": 3}.

    A setting that only some have, as of another version, is None in the others. Dataset and model stand elsewhere, and
    the hashes of their content only where they differ under one name.
    """
    flat = {e.name: dict(_flattened(e.configuration)) for e in experiments}
    names = dict.fromkeys(name for settings in flat.values() for name in settings)

    def differs(name: str) -> bool:
        what = NAME_OF_HASH.get(name)
        values: dict[Any, set[str]] = {}  # by dataset or model where it is a hash of its content
        for settings in flat.values():
            values.setdefault(settings.get(what) if what else None, set()).add(json.dumps(settings.get(name)))
        return any(len(found) > 1 for found in values.values())

    shown = [name for name in names if name not in SHOWN_ELSEWHERE and differs(name)]
    return {e.name: {name: flat[e.name].get(name) for name in shown} for e in experiments}


def _flattened(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The settings with dotted names, those of one level after the other."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and name != "num_dropped":  # what a corpus lacks follows from the corpus
            yield from _flattened(value, f"{above}{name}.")
        elif not isinstance(value, Mapping):
            yield f"{above}{name}", value


def _render(experiment: Experiment, status: pd.DataFrame, differing: Mapping[str, Any]) -> list[Table | Text]:
    counts = status["state"].value_counts().reindex(STATES, fill_value=0)
    begun = "" if experiment.created_at is None else f"  begun {experiment.created_at[:10]}"
    settings = ", ".join(f"{name}={_as_text(value)}" for name, value in differing.items())
    parts: list[Table | Text] = [
        Text.assemble((experiment.name, "bold"), f"  {_dataset_and_model(experiment)}{begun}"),
        *([Text(f"differs from the others in: {settings}")] if settings else []),
        Text(f"{counted(len(status), 'trial')}: " + ", ".join(f"{count} {state}" for state, count in counts.items())),
        _counts_table(status),
    ]
    for row in status[status["state"] == "failed"].itertuples(index=False):
        removed = _removed_label(row.num_removed)
        line = f"failed: {row.method}, removed {removed}, seed {row.seed}: {row.error}"
        parts.append(Text(line, style="red", no_wrap=True, overflow="ignore"))
    for caveat in experiment.caveats:
        parts.append(Text(f"caution: {caveat}", style="yellow", no_wrap=True, overflow="ignore"))
    return [*parts, Text("")]


def _as_text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _dataset_and_model(experiment: Experiment) -> str:
    return f"{experiment.configuration['dataset']}, {experiment.configuration['model']}"


def _counts_table(status: pd.DataFrame) -> Table:
    """Seeds done of seeds planned, one row per number removed and one column per method."""
    methods = list(dict.fromkeys(status["method"]))
    table = Table(*(Column(Text(name)) for name in ("removed", *methods)), box=SIMPLE_HEAD)
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
