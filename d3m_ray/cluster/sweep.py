"""Ray Tune schedules the fits of every method, number removed and seed at once, over workers that stay alive."""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Literal

# Tune reads these when it is imported and when an experiment starts. The store is the record of what is done: Tune's
# own loggers and frequent snapshots would only cost time (40 against 16 ms a trial).
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import BasicVariantGenerator

from d3m_ray.cluster.dispatcher import ENDED, ERROR, TRACE
from d3m_ray.cluster.fleet import Fleet, Room
from d3m_ray.cluster.trainable import MAX_FAILURES, RETRIED, follow_fit
from d3m_ray.cluster.worker import packed
from d3m_ray.errors import RunError, reason
from d3m_ray.trials.engine import FailedFit, FitEvent, OnFit, PlannedFit, give_up
from d3m_ray.trials.trial import TrialContext

NEXT_TO_NOTHING = {
    "cpu": 0.0,
    "memory": 1.0,
}  # of a trial: its worker takes the core. Tune wants an amount of something


def run_fits(
    context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit, fleet: Fleet, num_workers: int
) -> list[FailedFit]:
    """Train the fits on so many workers and record their trials; those that failed for good. See `Engine.run_fits`.

    Raises KeyboardInterrupt where the user stopped it: what was in flight is lost, what was done is stored. Raises
    RunError where the cluster had no room for any fit for too long.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    fleet.grow(num_workers)
    shared = fleet.put_once(context)
    num_asked = min(num_workers, len(fits))
    ray.get(fleet.dispatcher.expect.remote([shared], [packed(planned) for planned in fits], num_asked))
    room = fleet.room(
        "the cluster to start a worker for the fits",
        "where there is room that takes up to a minute; "
        f"each takes {fleet.cpus_per_worker:g} CPU and {fleet.gpus_per_worker:g} GPU of one machine: --cpus-per-trial "
        "and --gpus-per-trial say how much",
    )
    # Listed, and no grid: of a grid Tune copies all values for each trial.
    points = [{"fit": _trial_config(number, planned)} for number, planned in enumerate(fits)]
    watcher = _Watcher(on_fit, fits, room)
    scratch = tempfile.mkdtemp(prefix="d3m_ray_tune_")
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(follow_fit, dispatcher=fleet.dispatcher), NEXT_TO_NOTHING),
        param_space={"fit": {"number": 0, "name": ""}},
        tune_config=tune.TuneConfig(
            reuse_actors=True,
            num_samples=len(fits),
            search_alg=BasicVariantGenerator(points_to_evaluate=points, max_concurrent=num_workers),
            trial_name_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=context.experiment,
            storage_path=scratch,
            verbose=0,
            callbacks=[watcher],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),  # of the process that waits, or its machine
        ),
    )
    try:
        results = tuner.fit()
    except Exception:
        if watcher.given_up is not None:
            raise watcher.given_up from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _settle(context, fits, results)


def _trial_config(number: int, planned: PlannedFit) -> dict[str, Any]:
    """What a trial knows of its fit. Tune writes it several times for each: it is small."""
    names = [f"{t.method}-{t.num_removed}-seed{t.seed}" for t in planned.trials[:1]]
    return {"number": number, "name": (names or [f"checkpoint-seed{planned.fit.seed}"])[0]}


def _trial_name(trial: Trial) -> str:
    return str(trial.config["fit"]["name"])


def _number(config: Mapping[str, Any] | None) -> int:
    return int((config or {})["fit"]["number"])


def _settle(context: TrialContext, fits: Sequence[PlannedFit], results: tune.ResultGrid) -> list[FailedFit]:
    """Record the errors. Raises KeyboardInterrupt where fits neither ended nor failed."""
    failed = []
    num_ended = 0
    for result in (results[index] for index in range(len(results))):
        if result.error is not None:
            trace = str(getattr(result.error, "traceback_str", result.error))
            failed.append(give_up(context, fits[_number(result.config)], reason(result.error), trace))
        elif result.metrics and ERROR in result.metrics:
            fit = fits[_number(result.config)]
            failed.append(give_up(context, fit, result.metrics[ERROR], result.metrics[TRACE]))
        elif result.metrics and ENDED in result.metrics:
            num_ended += 1
    if num_ended + len(failed) < len(fits):
        raise KeyboardInterrupt
    return failed


class _Watcher(tune.Callback):
    """Tells the display what Tune does. Tune pickles callbacks, and a display does not pickle: it stays behind."""

    def __init__(self, on_fit: OnFit, fits: Sequence[PlannedFit], room: Room) -> None:
        self._on_fit = on_fit
        self._num_trials = [len(planned.trials) for planned in fits]
        self._room: Room | None = room
        self.given_up: RunError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_on_fit": _say_nothing, "_room": None}

    def _event(self, state: Literal["started", "retried", "done", "failed"], trial: Trial) -> FitEvent:
        return FitEvent(state, self._num_trials[_number(trial.config)], (trial.last_result or {}).get("val_wga"))

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._room is None:
            return
        try:
            self._room.look()
        except RunError as error:
            self.given_up = error
            raise

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("started", trial))

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: Any, **info: Any) -> None:
        if RETRIED in result:
            self._on_fit(self._event("retried", trial))
            self._on_fit(self._event("started", trial))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("failed" if ERROR in (trial.last_result or {}) else "done", trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("failed", trial))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("retried", trial))


def _say_nothing(event: FitEvent) -> None:
    """Where the display stayed behind: Tune runs on the head of a cluster that was joined as ray://..."""
