"""Training as stages: the base models, the trials that can run, and what the arms may look at by then."""

import traceback
from collections.abc import Callable, Sequence

import numpy as np

from d3m_ray.engine import FailedFit, PlannedFit, reason
from d3m_ray.errors import RunError
from d3m_ray.experiment.run import Run
from d3m_ray.experiment.scoring import is_scored, table_scored_for
from d3m_ray.failures import Unscored, lost_base_models
from d3m_ray.metrics import cell_losses
from d3m_ray.planning import NOTHING, alignment_names, attribution_method, checkpoint_keys
from d3m_ray.records import cells_of
from d3m_ray.selection import Evidence
from d3m_ray.store import StoreError
from d3m_ray.trial import FitSpec, TrialSpec, fit_is_stored, record_trial


def base_models(run: Run, keep_weights: bool | None = None) -> list[FitSpec]:
    """The base models; their weights are kept where `keep_weights`, or else where scores are still to be made."""
    if keep_weights is None:
        unaligned = set(alignment_names(run.config)) - set(run.stored_alignments())
        keep_weights = not all(is_scored(table_scored_for(name), attribution_method(name), run) for name in unaligned)
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
        alignments=run.stored_alignments(),
        cell_losses=_val_cell_losses(run) if stored else None,
    )


def _val_cell_losses(run: Run) -> np.ndarray:
    """[G, L] val loss of each cell, mean over the base models."""
    splits = run.context.splits
    cells = cells_of(splits.val.groups, splits.val.labels, splits.num_labels)
    sizes = len(splits.group_names), splits.num_labels
    return np.mean([cell_losses(p, cells, *sizes) for p in run.base_predictions(splits.val)], axis=0)


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
    num_waiting = sum(map(len, waiting.values()))
    run.progress.stage(
        f"{len(trials)} trials, {len(trials) - num_waiting} of them stored before; {len(planned)} fits to train"
    )
    if not planned:
        return []
    run.progress.begin_fits(len(planned))
    return run.engine.run_fits(context, planned, run.progress.fit)


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
