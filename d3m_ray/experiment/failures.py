"""What of an experiment failed, and why: stored with each trial, and told in as many lines as there are reasons."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.keys import NOTHING, checkpoint_keys
from d3m_ray.experiment.plan import asked_trials
from d3m_ray.selection.arms import ARMS, Evidence, can_select
from d3m_ray.trials.engine import FailedFit
from d3m_ray.trials.trial import TrialContext, TrialSpec, record_unselected, unselected_key
from d3m_ray.wording import counted


@dataclass(frozen=True)
class Unscored:
    """An alignment, or method, whose scores could not be made, or an arm some of whose trials have no fit to take.

    What reads it has no result, all else has.
    """

    name: str
    error: str
    """In one line."""
    trace: str


def lost_base_models(
    config: ExperimentConfig, context: TrialContext, failed: Sequence[FailedFit], removed: np.ndarray = NOTHING
) -> tuple[str, str] | None:
    """The error and traceback for what reads the base models, or those without what earlier rounds removed.

    None where each of them could be trained.
    """
    keys = checkpoint_keys(config, context, removed)
    lost = next((failure for failure in failed if failure.fit_key in keys), None)
    if lost is None:
        return None
    return f"it reads the base models, and one could not be trained: {lost.error}", lost.trace


def settle_unselected(
    config: ExperimentConfig,
    context: TrialContext,
    evidence: Evidence,
    failed: Sequence[FailedFit],
    unscored: Sequence[Unscored],
) -> None:
    """Store why trials have no selection, and forget what an earlier run stored of those that have one by now."""
    reasons: Mapping[str, tuple[str, str]] = {each.name: (each.error, each.trace) for each in unscored}
    without_base = lost_base_models(config, context, failed)
    stored = context.store.keys("failures")
    for trial in asked_trials(config, context):
        arm, key = ARMS[trial.method], unselected_key(context, trial)
        if trial.num_removed == 0 or can_select(trial.method, evidence, trial.num_removed):
            if key in stored:
                context.store.delete_failure(key, trial.method)
            continue
        why = reasons.get(arm.alignment or "", without_base)
        if why is not None:
            record_unselected(context, trial, *why)


def lost_trials(context: TrialContext, trials: Sequence[TrialSpec], failed: Sequence[FailedFit]) -> list[Unscored]:
    """The arms with trials that the store lacks though no fit of theirs failed: results that were lost on the way."""
    stored, given_up = context.store.keys("trials"), {failure.fit_key for failure in failed}
    lost: dict[str, list[TrialSpec]] = {}
    for trial in trials:
        if trial.trial_key not in stored and trial.fit.fit_key not in given_up:
            lost.setdefault(trial.method, []).append(trial)
    return [
        Unscored(
            method,
            f"{counted(len(of_method), 'trial')} trained and not in {context.store}, the first with "
            f"{of_method[0].num_removed} removed and seed {of_method[0].seed}; see that every machine writes to "
            "this store and that nothing deletes from it",
            "",
        )
        for method, of_method in lost.items()
    ]


def told(failed: Sequence[FailedFit], unscored: Sequence[Unscored]) -> list[str]:
    """A line for each distinct reason, with how many fits, or which methods, it ended.

    Reasons that differ in their numbers only are one; its first wording stands for all.
    """
    fits: dict[str, list[str]] = {}
    for failure in failed:
        fits.setdefault(re.sub(r"\d+", "0", failure.error), []).append(failure.error)
    methods: dict[str, list[str]] = {}
    for each in unscored:
        methods.setdefault(each.error, []).append(each.name)
    of_fits = [f"{counted(len(errors), 'fit')}: {errors[0]}" for errors in fits.values()]
    return of_fits + [f"{', '.join(names)}: {error}" for error, names in methods.items()]
