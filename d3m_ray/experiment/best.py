"""The arms that take another arm's number of highest val target, as a stage after its trials: nothing is trained."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.experiment.failures import Unscored
from d3m_ray.experiment.keys import attribution_method, group_scores_key
from d3m_ray.experiment.run import Run
from d3m_ray.selection.arms import ARMS, Evidence
from d3m_ray.selection.best_number import LEVEL, NumberChoice, choose_number, val_target
from d3m_ray.store.experiments import PlannedTrial
from d3m_ray.trials.stored_fits import stored_predictions
from d3m_ray.trials.trial import FitSpec, TrialSpec, record_trial, record_unselected, unselected_key
from d3m_ray.wording import counted

Row = Mapping[Hashable, Any]  # of `_stored_trials`


def record_best(run: Run, evidence: Evidence) -> list[Unscored]:
    """Choose the number of each such arm, and record its trials from the fits that they share with the arm it is of.

    The choice is over every seed and number of the experiment that are stored by now, asked for in this run or in an
    earlier one; trials of another choice are forgotten. Reads val alone. Returns the arms some of whose trials have no
    result, since the number taken was not trained under each of their seeds.
    """
    lacking = []
    for method in run.config.methods:
        arm = ARMS[method]
        if arm.best_of is not None and arm.can_select(evidence):
            why = _record(method, arm.best_of, run)
            lacking += [] if why is None else [Unscored(method, why, why)]
    return lacking


def _record(method: str, source: str, run: Run) -> str | None:
    """Choose for one arm and record it; why some of its trials have no result, where that is so."""
    context, progress = run.context, run.progress
    trials = _stored_trials(source, run)
    numbers = np.array(sorted({number for number in trials["num_removed"] if number > 0}), dtype=np.int64)
    targets = _targets(method, trials, run)
    seeds = sorted(targets.index)
    gains = targets.reindex(columns=numbers).sub(targets.get(0, np.nan), axis=0).loc[seeds].to_numpy(dtype=np.float64)
    choice = choose_number(numbers, gains)
    evidence = _as_metadata(source, numbers, seeds, gains, choice, run)
    chosen = {int(row["seed"]): row for row in trials[trials["num_removed"] == choice.number].to_dict("records")}
    asked = [trial for trial in _plan(run) if trial.method == method]
    wanted = {
        trial.seed: _trial_spec(method, source, chosen[trial.seed], evidence, run)
        for trial in asked
        if trial.seed in chosen
    }
    _forget_others(method, {spec.trial_key for spec in wanted.values()}, run)
    for spec in wanted.values():
        context.store.delete_failure(unselected_key(context, PlannedTrial(method, None, spec.seed)), method)
        if not _is_stored(spec, run):
            record_trial(context, spec)
    progress.stage(f"{method}: {told(source, numbers, choice)}")
    return _record_lacking([trial for trial in asked if trial.seed not in wanted], source, choice.number, run)


def _record_lacking(trials: Sequence[PlannedTrial], source: str, number: int, run: Run) -> str | None:
    """Store why these trials have no result; the reason, None where there are none."""
    if not trials:
        return None
    seeds = " ".join(str(trial.seed) for trial in trials)
    why = (
        f"it takes the fits of {source} with {number} removed, and of seeds {seeds} none is stored: --methods {source} "
        f"--num-removed {number} --seeds {seeds} trains them, and the same command then takes them"
    )
    for trial in trials:
        record_unselected(run.context, trial, why, why)
    return why


def told(source: str, numbers: np.ndarray, choice: NumberChoice) -> str:
    """A choice in words."""
    among = f"of {counted(len(numbers), 'number')} of {source}"
    if choice.number == 0:
        return f"{among}, none is shown to raise the val target: nothing is removed"
    place = numbers.tolist().index(choice.number)
    return (
        f"{among}, {choice.number} removed raises the val target most, by {choice.mean_gains[place]:+.4g} "
        f"(one-sided lower bound {choice.lower_bounds[place]:+.4g})"
    )


def _plan(run: Run) -> Sequence[PlannedTrial]:
    record = run.context.store.read_experiment(run.context.experiment)
    return () if record is None else record.plan


def _stored_trials(method: str, run: Run) -> pd.DataFrame:
    """One row per trial of the method whose fit is whole: `num_removed`, `seed`, `trial_key`, `fit_key`."""
    ours = [("experiment", "==", run.context.experiment), ("method", "==", method)]
    columns = ["num_removed", "seed", "trial_key", "fit_key", "created_at"]
    rows = run.context.store.read_all("trials", columns=columns, filters=ours).drop_duplicates()
    rows = rows.sort_values("created_at", kind="stable").drop_duplicates(["num_removed", "seed"], keep="last")
    whole = run.context.store.whole_keys("fits", dict.fromkeys(rows["fit_key"]), run.progress.stage)
    return rows[rows["fit_key"].isin(whole)].drop(columns="created_at")


def _targets(method: str, trials: pd.DataFrame, run: Run) -> pd.DataFrame:
    """The val target by seed (rows) and number removed (columns), NaN where there is no fit."""
    val = run.context.splits.val
    groups = _val_groups(method, run)
    weights = run.base_group_weights(val, groups, int(groups.max()) + 1).weights
    values = [
        val_target(stored_predictions(run.context.store, key, val).margins, groups, weights, run.config.alignment)
        for key in trials["fit_key"]
    ]
    return trials.assign(target=values).pivot(index="seed", columns="num_removed", values="target")


def _val_groups(method: str, run: Run) -> np.ndarray:
    """[Q] int64: the groups that the arm's alignment weighs, or the corpus's where it reads none."""
    name = ARMS[method].alignment
    if name is None or name == attribution_method(name):
        return run.context.splits.val.groups
    metadata = run.context.store.read_metadata("scores", group_scores_key(name, run.config, run.context), name)
    return np.array(metadata["configuration"]["query_groups"], dtype=np.int64)


def _as_metadata(
    source: str, numbers: np.ndarray, seeds: Sequence[int], gains: np.ndarray, choice: NumberChoice, run: Run
) -> dict[str, Any]:
    """What the trials' metadata say of the choice: JSON values."""

    def listed(values: np.ndarray) -> list[Any]:
        return [None if np.isnan(value) else float(value) for value in values]

    return {
        "best_of": source,
        "target": asdict(run.config.alignment),
        "level": LEVEL,
        "numbers": numbers.tolist(),
        "seeds": [int(seed) for seed in seeds],
        "gains": [listed(of_number) for of_number in gains.T],
        "mean_gains": listed(choice.mean_gains),
        "lower_bounds": listed(choice.lower_bounds),
    }


def _trial_spec(method: str, source: str, row: Row, evidence: Mapping[str, Any], run: Run) -> TrialSpec:
    """The trial under the arm's own name: the fit, and the ids, of the trial that it is of."""
    context, number = run.context, int(row["num_removed"])
    removed = np.zeros(0, dtype=np.int64)
    selection = dict(evidence)
    if number:
        key = str(row["trial_key"])
        ids = context.store.read("removals", key, source)["example_id"].astype(str)
        removed = np.flatnonzero(np.isin(context.splits.train.example_ids, ids.to_numpy(dtype=np.str_)))
        selection |= context.store.read_metadata("trials", key, source)["configuration"].get("selection", {})
    fit = FitSpec(str(row["fit_key"]), removed, int(row["seed"]))
    key = context.trial_key(fit.fit_key, method, number)
    return TrialSpec(key, method, number, fit.seed, fit, selection)


def _is_stored(trial: TrialSpec, run: Run) -> bool:
    """Whether the trial is stored with this evidence."""
    store = run.context.store
    if not store.has("trials", trial.trial_key, trial.method):
        return False
    stored = store.read_metadata("trials", trial.trial_key, trial.method)["configuration"]
    return bool(stored.get("selection") == trial.selection)


def _forget_others(method: str, wanted: set[str], run: Run) -> None:
    ours = [("experiment", "==", run.context.experiment), ("method", "==", method)]
    stored = run.context.store.read_all("trials", columns=["trial_key"], filters=ours)["trial_key"]
    others = sorted(set(stored) - wanted)
    for key in others:
        run.context.store.delete_result("trials", key, method)
        run.context.store.delete_result("removals", key, method)
    if others:
        run.progress.stage(f"{method}: forgotten: {counted(len(others), 'trial')} of an earlier choice, of fewer fits")
