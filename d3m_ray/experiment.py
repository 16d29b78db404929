"""THE STORY: data, base models, attribution, alignment, selection, trials; each stage skips what the store has.

Data gives disjoint train, val and test examples. We fine-tune base checkpoints. Attribution gives every train example
one score per group. Alignment weighs the groups by their val loss. Selection names the examples to remove. Trials
retrain without them, over seeds, beside random removals of the same size. Every result lands in the store.
"""

import functools
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import load as from_safetensors

from d3m_ray.alignment import group_alignment, group_scores, group_weights, pseudo_groups
from d3m_ray.attribution import METHODS, AttributionInputs, Checkpoint
from d3m_ray.config import ExperimentConfig
from d3m_ray.engine import Engine, FailedFit, PlannedFit, reason
from d3m_ray.errors import RunError
from d3m_ray.failures import Unscored, lost_base_models, settle_unselected
from d3m_ray.metrics import cell_losses, group_losses
from d3m_ray.planning import (
    NOTHING,
    Prepared,
    alignment_key,
    alignment_names,
    attribution_method,
    checkpoint_keys,
    plan_trials,
    query_split,
    reads_base_models,
    record_plan,
    scores_key,
    shared_settings,
)
from d3m_ray.progress import Progress
from d3m_ray.records import NUM_LABELS, Examples, Predictions, Splits
from d3m_ray.selection import ATTRIBUTION_SETTINGS, Evidence
from d3m_ray.store import SCORE_PREFIX, StoreError
from d3m_ray.trial import FitSpec, TrialContext, TrialSpec, fit_is_stored, record_trial, stored_predictions


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the experiment's name in the store, the fits that failed, and what could not be scored."""

    experiment: str
    splits: Splits
    failed: Sequence[FailedFit]
    unscored: Sequence[Unscored] = ()


@dataclass(frozen=True, eq=False)
class Run:
    """What every stage needs: what was asked for, what the trials share, where the work runs and who is told."""

    config: ExperimentConfig
    context: TrialContext
    engine: Engine
    progress: Progress


def run_experiment(prepared: Prepared, engine: Engine, progress: Progress) -> Outcome:
    """Bring the store to hold every trial of an experiment that `planning.prepare` has checked."""
    config, context = prepared.config, prepared.context
    store, splits = context.store, context.splits
    record_plan(prepared)
    run = Run(config, context, engine, progress)

    progress.stage(f"experiment {context.experiment} in {store}: base models, and trials that wait for no attribution")
    ready = plan_trials(config, context, gather_evidence(run))
    failed = train(run, ready, base_models(run) if reads_base_models(config) else ())

    unscored: list[Unscored] = []
    for name in alignment_names(config):
        if not store.has("alignments", alignment_key(name, config, context), name):
            unscored += unless_it_fails(name, run, failed, functools.partial(_attribute_and_align, name, run))

    begun = {trial.trial_key for trial in ready}
    evidence = gather_evidence(run)
    waiting = [t for t in plan_trials(config, context, evidence) if t.trial_key not in begun]
    if waiting:
        progress.stage("trials that remove what alignment or the base models' losses select")
        failed += train(run, waiting, ())
    settle_unselected(config, context, evidence, failed, unscored)
    return Outcome(context.experiment, splits, failed, unscored)


def unless_it_fails(
    name: str, run: Run, failed: Sequence[FailedFit], score: Callable[[], None]
) -> tuple[Unscored, ...]:
    """Make the scores of one method; where that fails, why: it ends what reads them, the other methods go on."""
    lost = lost_base_models(run.config, run.context, failed)
    try:
        if lost is None:
            score()
    except (RunError, StoreError):  # no other method would fare better
        raise
    except Exception as error:
        lost = reason(error), traceback.format_exc()
    if lost is None:
        return ()
    run.progress.stage(f"{name} has no scores: the others go on")
    return (Unscored(name, *lost),)


def base_models(run: Run, keep_weights: bool | None = None) -> list[FitSpec]:
    """The base models; their weights are kept where `keep_weights`, or else where an alignment is still to be made."""
    if keep_weights is None:
        keep_weights = len(_stored_alignments(run)) < len(alignment_names(run.config))
    keys = checkpoint_keys(run.config, run.context)
    return [FitSpec(key, NOTHING, seed, keeps_weights=keep_weights) for seed, key in enumerate(keys)]


def gather_evidence(run: Run) -> Evidence:
    """What of the arms' evidence the store has already."""
    train_split, keys = run.context.splits.train, checkpoint_keys(run.config, run.context)
    stored = run.context.store.keys("fits").issuperset(keys)
    return Evidence(
        labels=train_split.labels,
        groups=train_split.groups,
        alignments=_stored_alignments(run),
        cell_losses=_val_cell_losses(run) if stored else None,
    )


def _stored_alignments(run: Run) -> dict[str, np.ndarray]:
    """[N] alignments by name, those that the store has."""
    alignments = {}
    for name in alignment_names(run.config):
        key = alignment_key(name, run.config, run.context)
        if run.context.store.has("alignments", key, name):
            alignments[name] = run.context.store.read("alignments", key, name)["alignment"].to_numpy()
    return alignments


def train(run: Run, trials: Sequence[TrialSpec], checkpoints: Sequence[FitSpec]) -> list[FailedFit]:
    """Record the trials whose fit is stored, train each other fit once, for all trials that it answers."""
    context = run.context
    stored_trials, stored_fits = context.store.keys("trials"), context.store.keys("fits")
    fits: dict[str, FitSpec] = {}
    waiting: dict[str, list[TrialSpec]] = {}
    for fit in [*checkpoints, *(trial.fit for trial in trials)]:
        fits.setdefault(fit.fit_key, fit)
    for trial in trials:
        if trial.trial_key not in stored_trials:
            waiting.setdefault(trial.fit.fit_key, []).append(trial)
    planned = []
    for key, fit in fits.items():
        if fit_is_stored(context.store, fit, stored_fits):
            for trial in waiting.get(key, ()):
                record_trial(context, trial)
        elif key in waiting or fit in checkpoints:
            planned.append(PlannedFit(fit, tuple(waiting.get(key, ()))))
    if not planned:
        return []
    run.progress.begin_fits(len(planned))
    return run.engine.run_fits(context, planned, run.progress.fit)


def _attribute_and_align(name: str, run: Run) -> None:
    """Score the train split for each group, or pseudo-group, weigh the groups, and store the alignment."""
    context, config = run.context, run.config
    method = attribution_method(name)
    run.progress.stage(f"attribution by {method}, and group alignment")
    queries = context.splits.by_name()[query_split(config)]
    if name == method:
        scores, seconds = attribute(method, run)
        groups, names = queries.groups, list(context.splits.group_names)
    else:
        matrix, seconds = query_scores(method, run)
        groups = pseudo_groups(matrix, queries.labels)
        scores = group_scores(matrix, groups, int(groups.max()) + 1)
        names = [f"pseudo_{number}" for number in range(scores.shape[1])]
    losses = np.mean([group_losses(p, groups, len(names)) for p in _base_predictions(run, queries)], axis=0)
    weights = group_weights(losses, config.alignment)
    alignment = group_alignment(scores, weights)
    num_lost = int((~np.isfinite(alignment)).sum())
    if num_lost:
        raise FloatingPointError(
            f"{num_lost} of {len(alignment)} train examples have no finite alignment: lower --beta, raise the method's "
            "damping or use --precision float32"
        )
    configuration = _scoring_configuration(run, method, seconds) | {
        "group_names": names,
        "group_losses": losses.tolist(),
        "group_weights": weights.tolist(),
    }
    key = alignment_key(name, config, context)
    columns = {"alignment_key": key, "alignment": alignment}
    context.store.write("alignments", key, _train_rows(context, columns, names, scores), configuration, name)
    run.progress.stage(f"{name}: {len(scores)} train examples scored for {len(names)} groups in {seconds:.1f} s")


def query_scores(method: str, run: Run) -> tuple[np.ndarray, float]:
    """[N, Q] float32 scores of every query, from the store or made and stored, and the seconds that making took."""
    store, key = run.context.store, scores_key(method, run.config, run.context)
    ids = run.context.splits.by_name()[query_split(run.config)].example_ids
    if not store.has("query_scores", key, method):
        matrix, seconds = attribute(method, run, each_query=True)
        rows = _train_rows(run.context, {"scores_key": key}, ids, matrix)
        store.write("query_scores", key, rows, _scoring_configuration(run, method, seconds), method)
    stored = store.read("query_scores", key, method)
    seconds = store.read_metadata("query_scores", key, method)["configuration"]["scoring_seconds"]
    return stored[[f"{SCORE_PREFIX}{name}" for name in ids]].to_numpy(np.float32), seconds


def attribute(method: str, run: Run, each_query: bool = False) -> tuple[np.ndarray, float]:
    """[N, G] float32 scores of every group, or [N, Q] of each query, and the seconds that they took."""
    context, config = run.context, run.config
    keys = checkpoint_keys(config, context)
    checkpoints = [Checkpoint(key, context.base, from_safetensors(context.store.read_checkpoint(key))) for key in keys]
    inputs = AttributionInputs(
        checkpoints=tuple(checkpoints),
        train=context.tokens["train"],
        queries=context.tokens[query_split(config)],
        num_groups=len(context.splits.group_names),
        precision=config.training.precision,
        explains_test=query_split(config) == "test",
    )
    field = ATTRIBUTION_SETTINGS[method]
    settings = None if field is None else getattr(config, field)
    score = METHODS[method].score_queries if each_query else METHODS[method].score_groups
    start = time.perf_counter()
    with run.engine.pool(run.progress.shards) as pool:
        scores = score(inputs, settings, pool)
    return scores, time.perf_counter() - start


def _val_cell_losses(run: Run) -> np.ndarray:
    """[G, L] val loss of each cell, mean over the base models."""
    val, num_groups = run.context.splits.val, len(run.context.splits.group_names)
    cells = val.groups * NUM_LABELS + val.labels
    return np.mean([cell_losses(p, cells, num_groups) for p in _base_predictions(run, val)], axis=0)


def _base_predictions(run: Run, examples: Examples) -> list[Predictions]:
    """What each base model says of the examples."""
    keys = checkpoint_keys(run.config, run.context)
    return [stored_predictions(run.context.store, key, examples) for key in keys]


def _scoring_configuration(run: Run, method: str, seconds: float) -> dict[str, Any]:
    return {
        **shared_settings(run.config),
        "data_hash": run.context.data_hash,
        "model_hash": run.context.model_hash,
        "attribution": method,
        "checkpoints": checkpoint_keys(run.config, run.context),
        "query_split": query_split(run.config),
        "scoring_seconds": seconds,
    }


def _train_rows(
    context: TrialContext, columns: dict[str, Any], names: Sequence[str] | np.ndarray, scores: np.ndarray
) -> pd.DataFrame:
    """One row per train example: who it is, what else is told of it, and its score for each name."""
    train_split = context.splits.train
    about = {
        "example_id": train_split.example_ids,
        "group": np.array(context.splits.group_names)[train_split.groups],
        "label": train_split.labels,
    }
    scored = pd.DataFrame(scores, columns=[f"{SCORE_PREFIX}{name}" for name in names])
    return pd.concat([pd.DataFrame(about | columns), scored], axis=1)
