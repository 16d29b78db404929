"""The fits of a run: begun as soon as it is known what they lack, each once, and waited for by what reads them."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from d3m_ray.experiment.run import Run
from d3m_ray.trials.engine import FailedFit, PendingFits, PlannedFit
from d3m_ray.trials.trial import FitSpec, TrialSpec, record_failure, record_trial
from d3m_ray.wording import counted


class Fits:
    """What a run trains, in sets that overlap: one is begun while those before it, and attribution, go on."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun: set[str] = set()  # the keys of trials
        self._sets: list[tuple[PendingFits, frozenset[str]]] = []  # not waited for yet, with the keys of their fits
        self._sharing: dict[str, list[TrialSpec]] = {}  # by fit: trials of a later set than the one that trains it
        self.failed: list[FailedFit] = []
        """Of the sets that were waited for."""

    def begin(self, trials: Iterable[TrialSpec], checkpoints: Sequence[FitSpec] = (), by: str = "") -> None:
        """Record the trials whose fit is stored, begin each other fit once, for all trials that it answers.

        `checkpoints` are fits that are wanted for themselves, whether or not a trial waits for them; they are a set of
        their own, before the others. Trials that were begun before are left out. A trial whose fit is lost or damaged
        counts as not stored. `by` says what selected the trials.
        """
        new = [trial for trial in trials if trial.trial_key not in self._begun]
        if not new and not checkpoints:
            return
        self._begun |= {trial.trial_key for trial in new}
        planned, num_stored = self._plan(new, checkpoints)
        self._run.progress.stage(
            f"{f'{by}: ' if by else ''}{counted(len(new), 'trial')}, {num_stored} of them stored before; "
            f"{counted(len(planned), 'fit')} to train"
        )
        if planned:
            self._run.progress.begin_fits(len(planned))
        first = {fit.fit_key for fit in checkpoints}
        self._start([each for each in planned if each.fit.fit_key in first])
        self._start([each for each in planned if each.fit.fit_key not in first])

    def wait(self, reading: Sequence[FitSpec] | None = None) -> None:
        """Until all fits have ended, or those of the sets with the ones that are read. Raises as `PendingFits.wait`."""
        keys = None if reading is None else {fit.fit_key for fit in reading}
        for pending in [each for each in self._sets if keys is None or not each[1].isdisjoint(keys)]:
            failed = pending[0].wait()
            self._sets.remove(pending)
            self.failed += failed
            self._settle(pending[1] & self._sharing.keys(), {failure.fit_key: failure for failure in failed})

    def _plan(self, trials: Sequence[TrialSpec], checkpoints: Sequence[FitSpec]) -> tuple[list[PlannedFit], int]:
        """The fits to train, with their trials, and how many trials were stored before."""
        context, say = self._run.context, self._run.progress.stage
        under_way = frozenset[str]().union(*(keys for _, keys in self._sets))
        fits: dict[str, FitSpec] = {}
        for fit in [*checkpoints, *(trial.fit for trial in trials)]:
            if fit.fit_key not in under_way:
                fits.setdefault(fit.fit_key, fit)
        stored_trials, failures = context.store.keys("trials"), context.store.keys("failures")
        whole_fits = context.store.whole_keys("fits", dict.fromkeys(fits), say)
        waiting: dict[str, list[TrialSpec]] = {}
        for trial in trials:
            key = trial.fit.fit_key
            if key in under_way:
                self._sharing.setdefault(key, []).append(trial)
            elif trial.trial_key not in stored_trials or key not in whole_fits:
                may_have_failed = trial.trial_key in failures
                waiting.setdefault(key, []).append(replace(trial, may_have_failed=may_have_failed))
        lost = {key for t in trials if t.trial_key in stored_trials and (key := t.fit.fit_key) in fits} - whole_fits
        if lost:
            say(f"{counted(len(lost), 'fit')} of stored trials lost or damaged: to be trained again")
        planned = []
        for key, fit in fits.items():
            if key not in waiting and fit not in checkpoints:
                continue
            weights_stored = not fit.keeps_weights or context.store.has_whole_checkpoint(key, say)
            if weights_stored and key in whole_fits:
                for trial in waiting.get(key, ()):
                    record_trial(context, trial)
            else:
                planned.append(PlannedFit(fit, tuple(waiting.get(key, ()))))
        num_sharing = sum(trial.fit.fit_key in under_way for trial in trials)
        return planned, len(trials) - num_sharing - sum(map(len, waiting.values()))

    def _start(self, planned: Sequence[PlannedFit]) -> None:
        if planned:
            run = self._run
            pending = run.engine.begin_fits(run.context.whole(), planned, run.progress.fit)
            self._sets.append((pending, frozenset(each.fit.fit_key for each in planned)))

    def _settle(self, keys: Iterable[str], failed: dict[str, FailedFit]) -> None:
        """Record the trials that share a fit with those of the set that has trained it, or why they have no result."""
        for key in keys:
            for trial in self._sharing.pop(key):
                if key in failed:
                    record_failure(self._run.context, trial, failed[key].error, failed[key].trace)
                else:
                    record_trial(self._run.context, trial)
