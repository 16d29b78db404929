"""What the stages are made of: the base models, the trials that can run, and what the arms may look at by then."""

import functools
import traceback
from collections.abc import Callable, Sequence

import numpy as np

from d3m_ray.errors import RunError, reason
from d3m_ray.experiment.failures import Unscored, lost_base_models
from d3m_ray.experiment.fits import Fits
from d3m_ray.experiment.keys import attribution_method, checkpoint_keys
from d3m_ray.experiment.plan import alignment_names, floors_of, plan_trials
from d3m_ray.experiment.rounds import done_rounds, waiting_rounds
from d3m_ray.experiment.run import Run
from d3m_ray.experiment.scoring import attribute_and_align, is_aligned, is_scored, table_scored_for
from d3m_ray.metrics.groups import cell_losses
from d3m_ray.records import cells_of
from d3m_ray.selection.arms import ARMS, Evidence
from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.trials.engine import FailedFit
from d3m_ray.trials.trial import FitSpec, TrialSpec
from d3m_ray.wording import counted


def discard_incomplete(run: Run) -> None:
    """Delete what is damaged of the stored trials, and each of this experiment that lacks the ids which it removed.

    A trial that is deleted is recorded again from its fit. Every file is read once. So is what is damaged of the other
    tables that a run reads as a whole.
    """
    store, say = run.context.store, run.progress.stage
    for table in ("trials", "failures", "lds"):
        store.delete_damaged(table, say)
    removing = [("experiment", "==", run.context.experiment), ("num_removed", ">", 0)]
    trials = store.read_all("trials", columns=["trial_key", "method"], filters=removing).drop_duplicates()
    methods = dict(zip(trials["trial_key"], trials["method"], strict=True))
    lost = sorted(methods.keys() - store.whole_keys("removals", methods, say))
    for key in lost:
        store.delete_result("trials", key, methods[key])
    if lost:
        say(f"{counted(len(lost), 'stored trial')} without the list of what was removed: to be recorded again")


def base_models(run: Run, keep_weights: bool | None = None) -> list[FitSpec]:
    """The models that scores are made with; weights are kept where `keep_weights`, or else where scores are missing."""
    if keep_weights is None:
        unaligned = [name for name in alignment_names(run.config) if not is_aligned(name, run)]
        keep_weights = not all(is_scored(table_scored_for(name), attribution_method(name), run) for name in unaligned)
    keys = checkpoint_keys(run.config, run.context, run.removed)
    return [FitSpec(key, run.removed, seed, keeps_weights=keep_weights) for seed, key in enumerate(keys)]


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
        cell_floors=floors_of(run.config, run.context.splits),
        num_rounds=run.config.selection.rounds,
        over_rounds=done_rounds(run),
        train=train_split,
    )


def _val_cell_losses(run: Run) -> np.ndarray:
    """[G, L] val loss of each cell, mean over the base models."""
    splits = run.context.splits
    cells = cells_of(splits.val.groups, splits.val.labels, splits.num_labels)
    sizes = len(splits.group_names), splits.num_labels
    return np.mean([cell_losses(p, cells, *sizes) for p in run.base_predictions(splits.val)], axis=0)


def selected_by(alignment: str | None, run: Run) -> list[TrialSpec]:
    """The trials that this alignment selects, or, where it is None, the base models' losses; those that can be told."""
    arms = [m for m in run.config.methods if ARMS[m].alignment == alignment]
    if alignment is None:
        arms = [method for method in arms if ARMS[method].reads_cell_losses]
    return plan_trials(run.config, run.context, gather_evidence(run), arms) if arms else []


def forget_superseded(run: Run, trials: Sequence[TrialSpec]) -> None:
    """Delete stored trials in whose place this run has others: readers take the one that was recorded last.

    An experiment's settings stay, but what an arm selects changes with its code, or with a method's version, and may
    change back. Where the arm decides the number, those of every other number go. Fits stay.
    """
    if not trials:
        return
    store = run.context.store

    def place(method: str, num_removed: int, seed: int) -> tuple[str, int | None, int]:
        return method, None if ARMS[method].chooses_number else num_removed, seed

    ours = [("experiment", "==", run.context.experiment), ("method", "in", list({trial.method for trial in trials}))]
    columns = ["method", "num_removed", "seed", "trial_key"]
    rows = store.read_all("trials", columns=columns, filters=ours)[columns].drop_duplicates()
    stored = {str(key): place(str(m), int(k), int(s)) for m, k, s, key in rows.itertuples(index=False, name=None)}
    asked = {place(t.method, t.num_removed, t.seed): t.trial_key for t in trials if t.trial_key in stored}
    others = [(key, of) for key, of in stored.items() if asked.get(of, key) != key]
    for key, (method, *_) in others:
        store.delete_result("trials", key, method)
        store.delete_result("removals", key, method)
    if others:
        run.progress.stage(
            f"forgotten: {counted(len(others), 'trial')} of an earlier selection, of another code or version"
        )


def forget_superseded_lds(run: Run, method: str, key: str) -> None:
    """Delete the LDS of a method in whose place this one is: of the same subsets' share and seeds, and other scores.

    Or of the same scores and fits, by another version. Readers would take whichever key is the last. One of the same
    scores over other subsets stays.
    """
    store = run.context.store
    ours = [("experiment", "==", run.context.experiment), ("method", "==", method)]
    studies = store.read_all("lds", columns=["lds_key", "keep_share", "subset_seeds"], filters=ours).drop_duplicates()
    of_key = {str(name): study for name, *study in studies.itertuples(index=False, name=None)}

    def made_from(name: str) -> tuple[list[str], list[str]]:
        made_with = store.read_metadata("lds", name, method)["configuration"]
        return [made_with.get("scores_key"), made_with.get("alignment_key")], made_with.get("fits")

    scores, fits = made_from(key)
    for other in (name for name, study in of_key.items() if name != key and study == of_key[key]):
        of_other, its_fits = made_from(other)
        if of_other != scores or its_fits == fits:
            store.delete_result("lds", other, method)
            run.progress.stage(f"{method}: an LDS of other scores, by another code or version, is forgotten")


def tell_of_spared(run: Run, trials: Sequence[TrialSpec]) -> None:
    """Say, once for each arm and number, where the cell floors changed a selection."""
    told = {}
    for trial in trials:
        if trial.selection.get("num_spared"):
            told[trial.method, trial.num_removed] = trial.selection["spared_cells"]
    for (method, number), cells in told.items():
        of_cells = ", ".join(f"{count} of {cell}" for cell, count in cells.items())
        run.progress.stage(
            f"{method}, {number} removed: --cell-floor {run.config.selection.cell_floor} kept {of_cells}"
        )


def go_through_rounds(run: Run, fits: Fits) -> list[Unscored]:
    """Refit the base models without what went, and score what is left, until every arm's rounds are done.

    All arms and numbers go on together, a round at a time: equal models are trained once, on the engine at once.
    """
    unscored: list[Unscored] = []
    given_up: set[tuple[bytes, str]] = set()
    num_rounds, num_models = run.config.selection.rounds, run.config.num_checkpoints
    for number in range(2, num_rounds + 1):
        waiting = waiting_rounds(run, given_up)
        if not waiting:
            break
        run.progress.stage(
            f"round {number} of {num_rounds}: {len(waiting)} reduced train splits, each with {num_models} base models "
            "and their scores"
        )
        models = [
            fit for left, names in waiting for fit in base_models(left, keep_weights=not _are_scored(names, left))
        ]
        fits.begin((), models)
        fits.wait(models)
        for left, names in waiting:
            for name in names:
                lost = unless_it_fails(name, left, fits.failed, functools.partial(attribute_and_align, name, left))
                given_up |= {(left.removed.tobytes(), each.name) for each in lost}
                unscored += lost
    return unscored


def _are_scored(names: Sequence[str], left: Run) -> bool:
    return all(is_scored(table_scored_for(name), attribution_method(name), left) for name in names)


def unless_it_fails(
    name: str, run: Run, failed: Sequence[FailedFit], score: Callable[[], None]
) -> tuple[Unscored, ...]:
    """Make the scores of one method; where that fails, why: it ends what reads them, the other methods go on."""
    lost = lost_base_models(run.config, run.context, failed, run.removed)
    try:
        if lost is None:
            score()
    except Exception as error:
        if isinstance(error, RunError | StoreError) and not isinstance(error, DamagedError):
            raise  # no other method would fare better
        lost = reason(error), traceback.format_exc()
    if lost is None:
        return ()
    run.progress.stage(f"{name} has no scores: the others go on")
    return (Unscored(name, *lost),)
