"""Ray Tune schedules the fits of every method, number removed and seed at once, over workers that stay alive."""

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for_any
from typing import Any

# Tune reads these when it is imported and when an experiment starts. The store is the record of what is done: Tune's
# own loggers and frequent snapshots would only cost time (40 against 16 ms a trial).
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator

from d3m_ray.cluster.dispatcher import ENDED, ERROR, SECONDS, TRACE
from d3m_ray.cluster.fleet import ROUND_SECONDS, Fleet
from d3m_ray.cluster.scratch import Scratch
from d3m_ray.cluster.trainable import ABANDONED, BEGUN, MAX_FAILURES, RETRIED, UNUSABLE, TrialOfFit
from d3m_ray.cluster.worker import packed
from d3m_ray.errors import EngineLostError, RunError, reason
from d3m_ray.store.errors import StoreError, UnusableError
from d3m_ray.trials.engine import FailedFit, FitEvent, OnFit, PlannedFit, State, give_up
from d3m_ray.trials.trial import TrialContext
from d3m_ray.wording import counted

NEXT_TO_NOTHING = {
    "cpu": 0.0,
    "memory": 1.0,
}  # of a trial: its worker takes the core. Tune wants an amount of something


class TuneRun:
    """A set of fits under a Tune run of its own, in a thread: several overlap, and signals stay with the main one.

    It waits for its turn, until workers have taken all fits of the sets before it, which their own runs follow; a
    trial costs a process, and no more of these wait than there are workers.
    """

    def __init__(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit, fleet: Fleet) -> None:
        """Begin to train the fits, after those of the runs begun before, and record their trials."""
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        self._context, self._fits, self._fleet, self._dispatcher = context, fits, fleet, fleet.dispatcher
        self._number, self._num_trials = fleet.next_number(), fleet.grow(len(fits))
        shared = fleet.put_once(context)
        begun, names = [packed(planned) for planned in fits], [str(planned) for planned in fits]
        fleet.answer(fleet.dispatcher.expect.remote(self._number, [shared], begun, self._num_trials, names))
        self._watcher = _Watcher(on_fit, fits, self._look_at_store)
        self._room = fleet.room("the fits")
        self._given_up: Exception | None = None
        self._results: Future[tune.ResultGrid] = Future()
        self._failed: list[FailedFit] | None = None
        self._scratch = Scratch()
        self._thread = threading.Thread(target=self._follow, name=f"fits {self._number}", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        return self._results.done()

    def wait(self) -> list[FailedFit]:
        """See `PendingFits.wait`; records the errors. Raises RunError where the cluster had no room for too long."""
        while not self.is_over and self._given_up is None:
            wait_for_any([self._results], ROUND_SECONDS)
            self._look()
        if (given_up := self._given_up or self._fleet.given_up) is not None:
            raise given_up
        try:
            grid = self._results.result()
        except RunError:
            if not self._watcher.is_stopped:
                self._fleet.look()  # which says why, where it knows
            raise
        if self._failed is None:
            results = [grid[index] for index in range(len(grid))]
            self._check_store_and_dispatcher(results)
            self._failed = _settle(self._context, self._fits, results)
        return self._failed

    def _look(self) -> None:
        """Give the run up where the cluster has had no room for too long, or the store is of no use."""
        try:
            self._room.look()
        except (RunError, StoreError) as error:
            self._given_up = error
            self.stop()

    def _look_at_store(self, line: str, is_everywhere: bool) -> None:
        """End all sets, and attribution, where a worker found the store of no use and this machine finds the same."""
        try:
            self._context.store.check_writable()
            if is_everywhere:  # also where there is room for less than was to be written
                raise UnusableError(line, is_everywhere)
        except StoreError as error:
            self._fleet.given_up = error
            self.stop()

    def _check_store_and_dispatcher(self, results: Sequence[tune.Result]) -> None:
        """Raise what ended fits at once, which nobody told of while they ran."""
        for told in (result.metrics or {} for result in results):
            if UNUSABLE in told:
                self._look_at_store(*told[UNUSABLE])
            if ABANDONED in told or self._fleet.given_up is not None:
                self._fleet.look()

    def stop(self) -> None:
        """Have Tune end the run at its next step."""
        self._watcher.is_stopped = True

    def join(self, seconds: float) -> None:
        """Wait so long at most for a run to end that was stopped; its files go in any case."""
        self._thread.join(seconds)
        self._scratch.delete()

    def _follow(self) -> None:
        try:
            ray.get(self._dispatcher.turn.remote(self._number))
            self._results.set_result(self._tuner(self._scratch.make()).fit())
        except BaseException as error:  # whatever it is, whoever waits is told
            self._results.set_exception(_as_run_error(error))
        finally:
            self._scratch.delete()
            self._dispatcher.forget.remote(self._number)

    def _tuner(self, scratch: str) -> tune.Tuner:
        # Listed, and no grid: of a grid Tune copies all values for each trial.
        points = [{"fit": _trial_config(self._number, *numbered)} for numbered in enumerate(self._fits)]
        name = self._context.experiment
        waiting = tune.with_parameters(TrialOfFit, dispatcher=self._dispatcher, of=name)
        trainable = tune.with_resources(waiting, NEXT_TO_NOTHING)
        trainable.__qualname__ = TrialOfFit.__qualname__  # which the dashboard shows; Tune derives nameless classes
        return tune.Tuner(
            trainable,
            param_space={"fit": {"set": 0, "number": 0, "name": ""}},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                num_samples=len(self._fits),
                search_alg=BasicVariantGenerator(points_to_evaluate=points, max_concurrent=self._num_trials),
                trial_name_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=f"{name}-{self._number}",  # Tune keeps the files of one name in one folder
                storage_path=scratch,
                verbose=0,
                callbacks=[self._watcher],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # of a process that waits: nothing
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),  # of the process that waits, or its host
            ),
        )


def _as_run_error(error: BaseException) -> BaseException:
    """What Ray raises where nothing hands out fits any more, in one line; everything else as it is."""
    if not isinstance(error, RayError):
        return error
    if not isinstance(error, RayTaskError):
        return EngineLostError(reason(error))
    return RunError(f"the fits cannot go on, {reason(error)}: the same command goes on with those that are not stored")


def _trial_config(of_set: int, number: int, planned: PlannedFit) -> dict[str, Any]:
    """What a trial knows of its fit. Tune writes it several times for each: it is small."""
    return {"set": of_set, "number": number, "name": str(planned)}


def _trial_name(trial: Trial) -> str:
    return str(trial.config["fit"]["name"])


def _number(config: Mapping[str, Any] | None) -> int:
    return int((config or {})["fit"]["number"])


def _settle(context: TrialContext, fits: Sequence[PlannedFit], results: Sequence[tune.Result]) -> list[FailedFit]:
    """Record the errors. Raises RunError where fits neither ended nor failed."""
    failed = []
    num_ended = 0
    for result in results:
        if result.error is not None:
            trace = str(getattr(result.error, "traceback_str", result.error))
            failed.append(give_up(context, fits[_number(result.config)], reason(result.error), trace))
        elif result.metrics and ERROR in result.metrics:
            fit = fits[_number(result.config)]
            failed.append(give_up(context, fit, result.metrics[ERROR], result.metrics[TRACE]))
        elif result.metrics and ENDED in result.metrics:
            num_ended += 1
    if num_left := len(fits) - num_ended - len(failed):
        raise RunError(f"Ray Tune ended with {counted(num_left, 'fit')} left: the same command goes on with them")
    return failed


class _Watcher(tune.Callback):
    """Tells the display what Tune does. Tune pickles callbacks, and a display does not pickle: it stays behind."""

    def __init__(
        self, on_fit: OnFit, fits: Sequence[PlannedFit], on_unusable: Callable[[str, bool], None] | None
    ) -> None:
        self._on_unusable = on_unusable
        self._on_fit: OnFit | None = on_fit  # none where Tune runs on the head of a cluster that was joined as ray://
        self._fits: Sequence[PlannedFit] = fits
        self._running: set[int] = set()
        self.is_stopped = False

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_on_fit": None, "_on_unusable": None, "_fits": ()}

    def _tell(self, state: State, trial: Trial) -> None:
        """A fit that failed without a worker has begun, too: whoever counts those that run takes one off."""
        told = trial.last_result or {}
        if self._on_fit is None or self.is_stopped or ABANDONED in told:
            return
        number = _number(trial.config)
        if state != "started" and number not in self._running:
            self._tell("started", trial)
        (self._running.add if state == "started" else self._running.discard)(number)
        val_wga = told.get("val_wga") if state == "done" else None
        seconds = told.get(SECONDS) if state in ("done", "failed") else None
        self._on_fit(FitEvent(state, self._fits[number], val_wga, seconds))

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self.is_stopped:
            raise RunError("the run was stopped")  # which nobody waits for

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        if BEGUN in result:
            self._tell("started", trial)
        if RETRIED in result:
            self._tell("retried", trial)
        if UNUSABLE in result and self._on_unusable is not None:
            self._on_unusable(*result[UNUSABLE])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell("failed" if ERROR in (trial.last_result or {}) else "done", trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell("failed", trial)

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._tell("retried", trial)
