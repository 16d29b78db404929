"""Ray Tune schedules the fits of every method, number removed and seed at once, over workers that stay alive."""

import logging
import os
import shutil
import tempfile
import traceback
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

from d3m_ray.errors import RunError
from d3m_ray.store.files import StoreError
from d3m_ray.training.memory import give_memory_back
from d3m_ray.trials.engine import FailedFit, FitEvent, OnFit, PlannedFit, give_up, reason, train_and_record
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.trials.trial import TrialContext
from d3m_ray.waiting import Patience, Say

ENDED = "ended"  # the metric that every fit reports
ERROR, TRACE = "error", "trace"  # the metrics of a fit that would fail again
MAX_FAILURES = 2  # times that a fit is tried again whose failure may pass, before its error is recorded
# What another try may not meet: a store or network out of reach, memory that others held. A CUDA error besides leaves
# its process of no use, which must end. All else, a loss that diverges or a wrong shape, would come again.
PASSING = (OSError, StoreError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)


def run_fits(
    context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit, execution: ExecutionConfig, say: Say
) -> list[FailedFit]:
    """Train the fits and record their trials; those that failed for good. See `Engine.run_fits`.

    Raises KeyboardInterrupt where the user stopped it: what was in flight is lost, what was done is stored. Raises
    RunError where the cluster had no room for any fit for too long.
    """
    cpus_per_trial, gpus_per_trial = execution.cpus_per_trial, execution.gpus_per_trial
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scratch = tempfile.mkdtemp(prefix="d3m_ray_tune_")
    patience = Patience(
        "the cluster to start a worker for the fits",
        "where there is room that takes up to a minute; "
        f"each takes {cpus_per_trial:g} CPU and {gpus_per_trial:g} GPU of one machine: --cpus-per-trial and "
        "--gpus-per-trial say how much",
        execution.max_wait_seconds,
        say,
    )
    watcher = _Watcher(on_fit, fits, patience)
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
    except Exception:
        if watcher.given_up is not None:
            raise watcher.given_up from None
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return _settle(context, fits, results)


def retrain(config: dict[str, int], context: TrialContext, fits: Sequence[PlannedFit], num_threads: int) -> None:
    """The trainable: one fit and its trials, in a worker process that keeps its model for the next."""
    torch.set_num_threads(num_threads)
    told: dict[str, Any] = {ENDED: 1}  # Tune says something aloud of an empty result
    try:
        val_wga = train_and_record(context, fits[config["fit"]])
        told |= {} if val_wga is None else {"val_wga": val_wga}
    except PASSING:
        raise  # Tune tries again, in a new process
    except Exception as error:
        told |= {ERROR: reason(error), TRACE: traceback.format_exc()}
    give_memory_back()
    tune.report(told)


def _trial_name(trial: Trial, fits: Sequence[PlannedFit]) -> str:
    planned = fits[trial.config["fit"]]
    names = [f"{t.method}-{t.num_removed}-seed{t.seed}" for t in planned.trials[:1]]
    return (names or [f"checkpoint-seed{planned.fit.seed}"])[0]


def _settle(context: TrialContext, fits: Sequence[PlannedFit], results: tune.ResultGrid) -> list[FailedFit]:
    """Record the errors. Raises KeyboardInterrupt where fits neither ended nor failed."""
    failed = []
    num_ended = 0
    for result in (results[index] for index in range(len(results))):
        if result.error is not None:
            trace = str(getattr(result.error, "traceback_str", result.error))
            failed.append(give_up(context, fits[(result.config or {})["fit"]], reason(result.error), trace))
        elif result.metrics and ERROR in result.metrics:
            fit = fits[(result.config or {})["fit"]]
            failed.append(give_up(context, fit, result.metrics[ERROR], result.metrics[TRACE]))
        elif result.metrics and ENDED in result.metrics:
            num_ended += 1
    if num_ended + len(failed) < len(fits):
        raise KeyboardInterrupt
    return failed


class _Watcher(tune.Callback):
    """Tells the display what Tune does. Tune pickles callbacks, and a display does not pickle: it stays behind."""

    def __init__(self, on_fit: OnFit, fits: Sequence[PlannedFit], patience: Patience) -> None:
        self._on_fit = on_fit
        self._num_trials = [len(planned.trials) for planned in fits]
        self._patience: Patience | None = patience
        self.given_up: RunError | None = None

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_on_fit": _say_nothing, "_patience": None}

    def _event(self, state: Literal["started", "retried", "done", "failed"], trial: Trial) -> FitEvent:
        return FitEvent(state, self._num_trials[trial.config["fit"]], (trial.last_result or {}).get("val_wga"))

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        if self._patience is None:
            return
        if all(trial.status != Trial.RUNNING for trial in trials) and any(t.status == Trial.PENDING for t in trials):
            try:
                self._patience.spend()
            except RunError as error:
                self.given_up = error
                raise
        else:
            self._patience.renew()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("started", trial))

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("failed" if ERROR in (trial.last_result or {}) else "done", trial))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("failed", trial))

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._on_fit(self._event("retried", trial))


def _say_nothing(event: FitEvent) -> None:
    """Where the display stayed behind: Tune runs on the head of a cluster that was joined as ray://..."""
