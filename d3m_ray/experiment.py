"""THE STORY: data, base models, attribution, alignment, selection, trials; each stage skips what the store has.

Data gives disjoint train, val and test examples. We fine-tune base checkpoints. Attribution gives every train example
one score per group. Alignment weighs the groups by their val loss. Selection names the examples to remove. Trials
retrain without them, over seeds, beside random removals of the same size. Every result lands in the store.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.alignment import group_alignment, group_scores, group_weights, pseudo_groups
from d3m_ray.attribution import METHODS, AttributionInputs, Checkpoint
from d3m_ray.attribution.support import coverage
from d3m_ray.config import ExperimentConfig
from d3m_ray.engine import Engine, FailedFit, PlannedFit
from d3m_ray.metrics import cell_losses, group_losses
from d3m_ray.planning import (
    NOTHING,
    Prepared,
    alignment_key,
    alignment_names,
    attribution_method,
    checkpoint_keys,
    group_scores_key,
    plan_trials,
    query_split,
    reads_base_models,
    record_plan,
    scores_key,
    shared_settings,
)
from d3m_ray.progress import Progress
from d3m_ray.records import Examples, Predictions, Splits, cells_of
from d3m_ray.selection import ATTRIBUTION_SETTINGS, Evidence
from d3m_ray.trial import FitSpec, TrialContext, TrialSpec, fit_is_stored, record_trial, stored_predictions

WELL_COVERED = 0.9  # of the parameters: what a method leaves out is said below


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the experiment's name in the store, and the fits that failed."""

    experiment: str
    splits: Splits
    failed: Sequence[FailedFit]


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
    store.delete_damaged("trials", progress.stage)

    progress.stage(f"experiment {context.experiment} in {store}: base models, and trials that wait for no attribution")
    ready = plan_trials(config, context, gather_evidence(run))
    failed = train(run, ready, base_models(run) if reads_base_models(config) else ())

    for name in alignment_names(config):
        if not store.has("alignments", alignment_key(name, config, context), name):
            progress.stage(f"attribution by {attribution_method(name)}, and group alignment")
            _attribute_and_align(name, run, failed)

    begun = {trial.trial_key for trial in ready}
    waiting = [t for t in plan_trials(config, context, gather_evidence(run)) if t.trial_key not in begun]
    if waiting:
        progress.stage("trials that remove what alignment or the base models' losses select")
        failed += train(run, waiting, ())
    return Outcome(context.experiment, splits, failed)


def base_models(run: Run, keep_weights: bool | None = None) -> list[FitSpec]:
    """The base models; their weights are kept where `keep_weights`, or else where scores are still to be made."""
    if keep_weights is None:
        unaligned = set(alignment_names(run.config)) - set(_stored_alignments(run))
        keep_weights = not all(is_scored(_table_scored_for(name), attribution_method(name), run) for name in unaligned)
    keys = checkpoint_keys(run.config, run.context)
    return [FitSpec(key, NOTHING, seed, keeps_weights=keep_weights) for seed, key in enumerate(keys)]


def gather_evidence(run: Run) -> Evidence:
    """What of the arms' evidence the store has already."""
    train_split, keys = run.context.splits.train, checkpoint_keys(run.config, run.context)
    stored = all(run.context.store.has_whole("fits", key, None, run.progress.stage) for key in keys)
    return Evidence(
        labels=train_split.labels,
        groups=train_split.groups,
        num_labels=run.context.splits.num_labels,
        alignments=_stored_alignments(run),
        cell_losses=_val_cell_losses(run) if stored else None,
    )


def _stored_alignments(run: Run) -> dict[str, np.ndarray]:
    """[N] alignments by name, those that the store has."""
    alignments = {}
    for name in alignment_names(run.config):
        key = alignment_key(name, run.config, run.context)
        if run.context.store.has_whole("alignments", key, name, run.progress.stage):
            alignments[name] = run.context.store.read("alignments", key, name)["alignment"].to_numpy()
    return alignments


def train(run: Run, trials: Sequence[TrialSpec], checkpoints: Sequence[FitSpec]) -> list[FailedFit]:
    """Record the trials whose fit is stored, train each other fit once, for all trials that it answers.

    `checkpoints` are fits that are wanted for themselves, whether or not a trial waits for them.
    """
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
        if key not in waiting and fit not in checkpoints:
            continue
        if key in stored_fits and fit_is_stored(context.store, fit, run.progress.stage):
            for trial in waiting.get(key, ()):
                record_trial(context, trial)
        else:
            planned.append(PlannedFit(fit, tuple(waiting.get(key, ()))))
    if not planned:
        return []
    run.progress.begin_fits(len(planned))
    return run.engine.run_fits(context, planned, run.progress.fit)


def is_scored(table: str, method: str, run: Run) -> bool:
    """Whether a method's scores of each group (table `scores`) or query (`query_scores`) are stored."""
    key = scores_key(method, run.config, run.context)
    return run.context.store.has_whole(table, key, method, run.progress.stage)


@dataclass(frozen=True, eq=False)
class ScoredGroups:
    """The scores of one alignment before its groups are weighed."""

    names: Sequence[str]
    """G names, of the groups or pseudo-groups."""
    query_groups: np.ndarray
    """[Q] int64 indices into `names`: the group of each query."""
    scores: np.ndarray
    """[N, G] float32, as stored."""
    configuration: Mapping[str, Any]
    """What they were made with."""


def _attribute_and_align(name: str, run: Run, failed: Sequence[FailedFit]) -> None:
    """Score the train split for each group, or pseudo-group, weigh the groups, and store the alignment."""
    context, config = run.context, run.config
    score = _score_groups if name == attribution_method(name) else _score_pseudo_groups
    scored = score(name, run, failed)
    predictions = _base_predictions(run, _queries(run))
    losses = np.mean([group_losses(p, scored.query_groups, len(scored.names)) for p in predictions], axis=0)
    weights = group_weights(losses, config.alignment)
    train_split = context.splits.train
    rows = pd.DataFrame(
        {
            "alignment_key": alignment_key(name, config, context),
            "example_id": train_split.example_ids,
            "group": np.array(context.splits.group_names)[train_split.groups],
            "label": train_split.labels,
            "alignment": group_alignment(scored.scores, weights),
        }
    )
    configuration = {
        **scored.configuration,
        "alignment": asdict(config.alignment),
        "scores_key": group_scores_key(name, config, context),
        "group_names": list(scored.names),
        "group_losses": losses.tolist(),
        "group_weights": weights.tolist(),
    }
    context.store.write("alignments", alignment_key(name, config, context), rows, configuration, name)
    seconds = scored.configuration["scoring_seconds"]
    run.progress.stage(
        f"{name}: {len(rows)} train examples aligned with {len(weights)} groups; scores took {seconds:.1f} s"
    )


def _score_groups(method: str, run: Run, failed: Sequence[FailedFit]) -> ScoredGroups:
    """The scores of every group, from the store or made and stored."""
    names = run.context.splits.group_names
    scores, configuration = _scores("scores", method, names, run, failed)
    return ScoredGroups(names, _queries(run).groups, scores, configuration)


def _score_pseudo_groups(name: str, run: Run, failed: Sequence[FailedFit]) -> ScoredGroups:
    """The scores of every pseudo-group: found in the scores of every query, averaged over it, and stored."""
    queries, context = _queries(run), run.context
    matrix, made_with = _scores("query_scores", attribution_method(name), queries.example_ids, run, failed)
    groups = pseudo_groups(matrix, queries.labels)
    names = [f"pseudo_{number}" for number in range(int(groups.max()) + 1)]
    scores = group_scores(matrix, groups, len(names)).astype(np.float32)
    key, ids = group_scores_key(name, run.config, context), context.splits.train.example_ids
    configuration = {**made_with, "query_ids": queries.example_ids.tolist(), "query_groups": groups.tolist()}
    context.store.write_scores("scores", key, scores, ids, names, configuration, name)
    return ScoredGroups(names, groups, scores, made_with)


def query_scores(method: str, run: Run, failed: Sequence[FailedFit]) -> tuple[np.ndarray, float]:
    """[N, Q] float32 scores of every query, from the store or made and stored, and the seconds that making took."""
    scores, configuration = _scores("query_scores", method, _queries(run).example_ids, run, failed)
    return scores, configuration["scoring_seconds"]


def _scores(
    table: str, method: str, names: Sequence[str] | np.ndarray, run: Run, failed: Sequence[FailedFit]
) -> tuple[np.ndarray, dict[str, Any]]:
    """[N, S] float32 scores for each group or query named, from the store or made and stored, and what made them."""
    store, key = run.context.store, scores_key(method, run.config, run.context)
    ids = run.context.splits.train.example_ids
    if not is_scored(table, method, run):
        scores, seconds = attribute(method, run, failed, each_query=table == "query_scores")
        store.write_scores(table, key, scores, ids, names, _scoring_configuration(run, method, seconds), method)
    return store.read_scores(table, key, ids, names, method), store.read_metadata(table, key, method)["configuration"]


def _table_scored_for(name: str) -> str:
    """The table whose scores an alignment is made from."""
    return "scores" if name == attribution_method(name) else "query_scores"


def attribute(method: str, run: Run, failed: Sequence[FailedFit], each_query: bool = False) -> tuple[np.ndarray, float]:
    """[N, G] float32 scores of every group, or [N, Q] of each query, and the seconds that they took."""
    context, config = run.context, run.config
    keys = checkpoint_keys(config, context)
    errors = [failure.error for failure in failed if failure.fit_key in keys]
    if errors:
        raise RuntimeError(f"attribution reads the base models, and one could not be trained: {errors[0]}")
    checkpoints = [Checkpoint(key, context.base, context.store.read_checkpoint(key)) for key in keys]
    inputs = AttributionInputs(
        checkpoints=tuple(checkpoints),
        train=context.tokens["train"],
        queries=context.tokens[query_split(config)],
        num_groups=len(context.splits.group_names),
        precision=config.training.precision,
        explains_test=query_split(config) == "test",
    )
    share = coverage(method, context.base, config.ekfac)
    if share is not None and share < WELL_COVERED:
        run.progress.stage(f"{method} reads the gradients of linear layers, {share:.0%} of the model's parameters")
    field = ATTRIBUTION_SETTINGS[method]
    settings = None if field is None else getattr(config, field)
    score = METHODS[method].score_queries if each_query else METHODS[method].score_groups
    start = time.perf_counter()
    with run.engine.pool(run.progress.shards) as pool:
        scores = score(inputs, settings, pool)
    return scores, time.perf_counter() - start


def _val_cell_losses(run: Run) -> np.ndarray:
    """[G, L] val loss of each cell, mean over the base models."""
    splits = run.context.splits
    cells = cells_of(splits.val.groups, splits.val.labels, splits.num_labels)
    sizes = len(splits.group_names), splits.num_labels
    return np.mean([cell_losses(p, cells, *sizes) for p in _base_predictions(run, splits.val)], axis=0)


def _queries(run: Run) -> Examples:
    """The examples whose margins are explained."""
    return run.context.splits.by_name()[query_split(run.config)]


def _base_predictions(run: Run, examples: Examples) -> list[Predictions]:
    """What each base model says of the examples."""
    keys = checkpoint_keys(run.config, run.context)
    return [stored_predictions(run.context.store, key, examples) for key in keys]


def _scoring_configuration(run: Run, method: str, seconds: float) -> dict[str, Any]:
    return {
        **{name: value for name, value in shared_settings(run.config).items() if name != "alignment"},
        "data_hash": run.context.data_hash,
        "model_hash": run.context.model_hash,
        "attribution": method,
        "coverage": coverage(method, run.context.base, run.config.ekfac),
        "checkpoints": checkpoint_keys(run.config, run.context),
        "query_split": query_split(run.config),
        "scoring_seconds": seconds,
    }
