"""THE STORY: data, base models, attribution, alignment, selection, trials; each stage skips what the store has.

Data gives disjoint train, val and test examples. We fine-tune base checkpoints. Attribution gives every train example
one score per group. Alignment weighs the groups by their val loss. Selection names the examples to remove. Trials
retrain without them, over seeds, beside random removals of the same size. Every result lands in the store.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from safetensors.numpy import load as from_safetensors

from d3m_ray.alignment import group_alignment, group_weights
from d3m_ray.attribution import METHODS, AttributionInputs, Checkpoint
from d3m_ray.config import ExperimentConfig
from d3m_ray.data import load_splits
from d3m_ray.engine import Engine, FailedFit, PlannedFit
from d3m_ray.metrics import group_losses
from d3m_ray.planning import (
    NOTHING,
    alignment_key,
    attribution_methods,
    make_context,
    plan_trials,
    record_plan,
    shared_settings,
)
from d3m_ray.progress import Progress
from d3m_ray.records import Splits
from d3m_ray.store import SCORE_PREFIX, Store
from d3m_ray.trial import FitSpec, TrialContext, TrialSpec, fit_is_stored, record_trial, stored_predictions


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the experiment's name in the store, and the fits that failed."""

    experiment: str
    splits: Splits
    failed: Sequence[FailedFit]


def run_experiment(config: ExperimentConfig, store: Store, engine: Engine, progress: Progress) -> Outcome:
    """Bring the store to hold every trial of the configuration. Raises InputError where an input breaks a rule."""
    splits = load_splits(config.corpus_options, config.data)
    progress.stage(describe(splits))
    context = make_context(config, splits, store)
    record_plan(config, context)

    progress.stage(f"experiment {context.experiment} in {store}: base models, and trials that wait for no attribution")
    checkpoints = _checkpoint_fits(config, context)
    alignments = _stored_alignments(config, context)
    ready = plan_trials(config, context, alignments)
    failed = _run_trials(context, engine, progress, ready, checkpoints)

    for method in attribution_methods(config):
        if method not in alignments:
            progress.stage(f"attribution by {method}, and group alignment")
            alignments[method] = _attribute_and_align(method, config, context, engine, progress, failed)

    begun = {trial.trial_key for trial in ready}
    waiting = [trial for trial in plan_trials(config, context, alignments) if trial.trial_key not in begun]
    if waiting:
        progress.stage("trials that remove what alignment selects")
        failed += _run_trials(context, engine, progress, waiting, ())
    return Outcome(context.experiment, splits, failed)


def _checkpoint_fits(config: ExperimentConfig, context: TrialContext) -> list[FitSpec]:
    """The base models; their weights are kept where an alignment is still to be made from them."""
    keeps = set(attribution_methods(config)) != set(_stored_alignments(config, context))
    return [
        FitSpec(context.fit_key(NOTHING, seed), NOTHING, seed, keeps_weights=keeps)
        for seed in range(config.num_checkpoints)
        if attribution_methods(config)
    ]


def describe(splits: Splits) -> str:
    """How many examples a corpus has, and what its loader left out and why, in one line."""
    sizes = ", ".join(f"{len(examples)} {name}" for name, examples in splits.by_name().items())
    dropped = "; ".join(f"{count} {reason}" for reason, count in splits.num_dropped.items() if count)
    return f"{splits.name}: {sizes} examples of {len(splits.group_names)} groups" + (
        f"; left out: {dropped}" if dropped else ""
    )


def _run_trials(
    context: TrialContext,
    engine: Engine,
    progress: Progress,
    trials: Sequence[TrialSpec],
    checkpoints: Sequence[FitSpec],
) -> list[FailedFit]:
    """Record the trials whose fit is stored, train each other fit once, for all trials that it answers."""
    stored_trials, stored_fits = context.store.keys("trials"), context.store.keys("fits")
    fits: dict[str, FitSpec] = {}
    for fit in [*checkpoints, *(trial.fit for trial in trials)]:
        fits.setdefault(fit.fit_key, fit)
    missing = [trial for trial in trials if trial.trial_key not in stored_trials]
    planned = []
    for fit in fits.values():
        waiting = tuple(trial for trial in missing if trial.fit.fit_key == fit.fit_key)
        if not fit_is_stored(context.store, fit, stored_fits):
            if waiting or fit in checkpoints:
                planned.append(PlannedFit(fit, waiting))
            continue
        for trial in waiting:
            record_trial(context, trial)
    if not planned:
        return []
    progress.begin_fits(len(planned))
    return engine.run_fits(context, planned, progress.fit)


def _stored_alignments(config: ExperimentConfig, context: TrialContext) -> dict[str, np.ndarray]:
    """[N] alignments by method, for the methods whose alignment the store has."""
    alignments = {}
    for method in attribution_methods(config):
        key = alignment_key(method, config, context)
        if context.store.has("alignments", key, method):
            alignments[method] = context.store.read("alignments", key, method)["alignment"].to_numpy()
    return alignments


def _attribute_and_align(
    method: str,
    config: ExperimentConfig,
    context: TrialContext,
    engine: Engine,
    progress: Progress,
    failed: Sequence[FailedFit],
) -> np.ndarray:
    """Score the train split for each group, weigh the groups, store the alignment and return it, [N] float64."""
    keys = [fit.fit_key for fit in _checkpoint_fits(config, context)]
    errors = [failure.error for failure in failed if failure.fit_key in keys]
    if errors:
        raise RuntimeError(f"attribution reads the base models, and one could not be trained: {errors[0]}")
    checkpoints = [Checkpoint(key, context.base, from_safetensors(context.store.read_checkpoint(key))) for key in keys]
    inputs = AttributionInputs(
        checkpoints=tuple(checkpoints),
        train=context.tokens["train"],
        queries=context.tokens["val"],
        num_groups=len(context.splits.group_names),
        precision=config.training.precision,
    )
    start = time.perf_counter()
    with engine.pool(progress.shards) as pool:
        scores = METHODS[method](inputs, config.trak, pool)
    seconds = time.perf_counter() - start
    val = context.splits.val
    losses = np.mean(
        [group_losses(stored_predictions(context.store, key, val), val, inputs.num_groups) for key in keys], axis=0
    )
    weights = group_weights(losses, config.alignment)
    alignment = group_alignment(scores, weights)
    configuration = {
        **shared_settings(config),
        "data_hash": context.data_hash,
        "checkpoints": keys,
        "group_names": context.splits.group_names,
        "group_losses": losses.tolist(),
        "group_weights": weights.tolist(),
        "scoring_seconds": seconds,
    }
    key = alignment_key(method, config, context)
    context.store.write(
        "alignments", key, _alignment_rows(key, context.splits, scores, alignment), configuration, method
    )
    progress.stage(f"{method}: {len(scores)} train examples scored for {inputs.num_groups} groups in {seconds:.1f} s")
    return alignment


def _alignment_rows(key: str, splits: Splits, scores: np.ndarray, alignment: np.ndarray) -> pd.DataFrame:
    names = np.array(splits.group_names)
    columns = {
        "alignment_key": key,
        "example_id": splits.train.example_ids,
        "group": names[splits.train.groups],
        "label": splits.train.labels,
        "alignment": alignment,
    }
    return pd.DataFrame(columns | {f"{SCORE_PREFIX}{name}": scores[:, g] for g, name in enumerate(splits.group_names)})
