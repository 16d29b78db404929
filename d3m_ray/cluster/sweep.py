"""Ray Tune schedules the fits of every method, number removed and seed at once, over workers that stay alive."""

import ctypes
import gc
import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, Literal

import torch

# Tune reads these when it is imported and when an experiment starts. The store is the record of what is done: Tune's
# own loggers and frequent snapshots would only cost time (40 against 16 ms a trial).
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "600")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")

from ray import tune
from ray.tune.experiment import Trial

from d3m_ray.engine import FailedFit, FitEvent, OnFit, PlannedFit, give_up, train_and_record
from d3m_ray.trial import TrialContext

ENDED = "ended"  # the metric that every fit reports
MAX_FAILURES = 2  # times that a failed fit is tried again before its error is recorded


def run_fits(
    context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit, cpus_per_trial: int, gpus_per_trial: float
) -> list[FailedFit]:
    """Train the fits and record their trials; those that failed for good. See `Engine.run_fits`.

    Raises KeyboardInterrupt where the user stopped it: what was in flight is lost, what was done is stored.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = tempfile.mkdtemp(prefix="d3m_ray_tune_")
    watcher = _Watcher(on_fit, fits)
    trainable = tune.with_parameters(retrain, context=context, fits=tuple(fits), num_threads=cpus_per_trial)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": cpus_per_trial, "gpu": gpus_per_trial}),
        param_space={"fit": tune.grid_search(list(range(len(fits))))},
        tune_config=tune.TuneConfig(reuse_actors=True, trial_name_creator=lambda trial: _trial_name(trial, fits)),
        run_config=tune.RunConfig(
            name=context.experiment,
            storage_path=scratch,
            verbose=0,
            callbacks=[watcher],
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
        ),
    )
    try:
        results = tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _settle(context, fits, results)


def retrain(config: dict[str, int], context: TrialContext, fits: Sequence[PlannedFit], num_threads: int) -> None:
    """The trainable: one fit and its trials, in a worker process that keeps its model for the next."""
    torch.set_num_threads(num_threads)
    val_wga = train_and_record(context, fits[config["fit"]])
    _give_memory_back()
    tune.report(
        {ENDED: 1} | ({} if val_wga is None else {"val_wga": val_wga})
    )  # Tune says something aloud of an empty result


def _give_memory_back() -> None:
    """Return freed memory to the system. Tune runs each fit in a new thread, glibc serves each thread from an arena of
    its own, and every arena keeps what was freed in it: a worker would grow by a gigabyte with some of its fits.
    """
    gc.collect()  # the optimiser and its schedule refer to each other
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _trial_name(trial: Trial, fits: Sequence[PlannedFit]) -> str:
    planned = fits[trial.config["fit"]]
    names = [f"{t.method}-{t.num_removed}-seed{t.fit.seed}" for t in planned.trials[:1]]
    return (names or [f"checkpoint-seed{planned.fit.seed}"])[0]


def _settle(context: TrialContext, fits: Sequence[PlannedFit], results: tune.ResultGrid) -> list[FailedFit]:
    """Record the errors. Raises KeyboardInterrupt where fits neither ended nor failed."""
    failed = []
    num_ended = 0
    for result in (results[index] for index in range(len(results))):
        if result.error is not None:
            trace = str(getattr(result.error, "traceback_str", result.error))
            failed.append(give_up(context, fits[(result.config or {})["fit"]], _last_line(result.error), trace))
        elif result.metrics and ENDED in result.metrics:
            num_ended += 1
    if num_ended + len(failed) < len(fits):
        raise KeyboardInterrupt
    return failed


def _last_line(error: BaseException) -> str:
    """Ray wraps the worker's traceback: its last line names the exception."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


class _Watcher(tune.Callback):
    """Tells the display what Tune does. Tune pickles callbacks, and a display does not pickle: it stays behind."""

    def __init__(self, on_fit: OnFit, fits: Sequence[PlannedFit]) -> None:
        self._on_fit = on_fit
        self._num_trials = [len(planned.trials) for planned in fits]

    def __getstate__(self) -> dict[str, Any]:
        return {"_on_fit": _say_nothing, "_num_trials": self._num_trials}

    def _event(self, state: Literal["started", "retried", "done", "failed"], trial: Trial) -> FitEvent:
        return FitEvent(state, self._num_trials[trial.config["fit"]], (trial.last_result or {}).get("val_wga"))

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("started", trial))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("done", trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("failed", trial))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("retried", trial))


def _say_nothing(event: FitEvent) -> None:
    """Where the display stayed behind: Tune runs on the head of a cluster that was joined as ray://..."""
