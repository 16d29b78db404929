"""What an experiment runs on: a protocol, and the engine that runs in this process."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

from d3m_ray.errors import reason
from d3m_ray.meter import METER, DoneFor
from d3m_ray.pool import LocalPool, OnProgress, WorkerPool
from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.trials.trial import FitSpec, TrialContext, TrialSpec, record_failure, record_trial, run_fit
from d3m_ray.wording import counted

MAX_SHOWN = 4  # of what was under way on a machine: it may have had a hundred workers
CHECKPOINT = "checkpoint"  # in the place of a method, of a fit that no trial waits for


def trial_name(method: str, num_removed: int, seed: int) -> str:
    """What a trial, or a fit by its first one, is called wherever a person reads it."""
    return f"{method} k={num_removed} seed={seed}"


@dataclass(frozen=True, eq=False)
class PlannedFit:
    """One model to fine-tune and the trials that it answers, possibly of several methods, possibly none."""

    fit: FitSpec
    trials: tuple[TrialSpec, ...]

    @property
    def method(self) -> str:
        """What it is counted under: the arm of the first trial that waits for it."""
        return self.trials[0].method if self.trials else CHECKPOINT

    @property
    def seed(self) -> int:
        """That of the same trial, or its own."""
        return self.trials[0].seed if self.trials else self.fit.seed

    def __str__(self) -> str:
        """What it is called on a dashboard, and by Tune."""
        return f"fit {trial_name(self.method, len(self.fit.removed), self.seed)}"


State = Literal["started", "retried", "done", "failed"]


@dataclass(frozen=True)
class FitEvent:
    """What became of a planned fit."""

    state: State
    planned: PlannedFit
    val_wga: float | None = None
    """Of the first of its trials. Test stays closed until the summary."""
    seconds: float | None = None
    """That it took where it was trained, if it was trained to its end, or to its own error."""


@dataclass(frozen=True)
class FailedFit:
    """A fit that was given up, and why; its trials' failures are in the store."""

    fit_key: str
    error: str
    """In one line."""
    trace: str = ""


OnFit = Callable[[FitEvent], None]


@dataclass(frozen=True)
class Lost:
    """A worker, or a machine with all of its workers, that died while an engine was at work; the run goes on."""

    machine: str
    """Its address."""
    worker: str | None
    """None where the machine itself is gone."""
    at: tuple[str, ...]
    """What was under way there: the names of fits and shards, which go to other workers."""
    num_slots: int
    """Workers for which the machines that are left are large enough."""
    cause: str = ""
    """Where it is known."""

    def __str__(self) -> str:
        """It and what follows, in one line."""
        what = f"machine {self.machine} has left the cluster"
        if self.worker is not None:
            what = f"{self.worker} on machine {self.machine} died"
        cause = f" ({self.cause})" if self.cause else ""
        shown = list(self.at[:MAX_SHOWN]) + [f"{len(self.at) - MAX_SHOWN} more"] * (len(self.at) > MAX_SHOWN)
        again = "; what was under way there is begun again: " + ", ".join(shown) if self.at else ""
        left = f"; {counted(self.num_slots, 'slot')} left" if self.worker is None else ""
        return f"{what}{cause}: the run goes on{left}{again}"


OnLost = Callable[[Lost], None]


class PendingFits(Protocol):
    """A set of fits that an engine has begun."""

    def wait(self) -> list[FailedFit]:
        """Those that failed, once all have ended. Raises, each time it is asked, what kept the set from its end."""
        ...


class Engine(Protocol):
    """Where attribution shards and fits run. Results do not depend on which engine it is, nor on what overlaps."""

    def pool(self, on_progress: OnProgress) -> AbstractContextManager[WorkerPool]:
        """Workers for the shards of attribution, which come before fits; given back at the end of the block.

        The block begins when there is one.
        """
        ...

    def begin_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> PendingFits:
        """Train each fit and record its trials, after the sets begun before. What fails is recorded; the others go on.

        `on_fit` may be called from another thread, and before this returns. Raises StoreError, as `PendingFits.wait`
        does, where the store cannot be written any more. Raises EngineLostError, as all that is asked of an engine,
        where it can go on only after `renew`.
        """
        ...

    def renew(self) -> None:
        """Give up what was begun, without another event of it, and be ready for what is asked next."""
        ...


@dataclass(frozen=True)
class EndedFits:
    """The `PendingFits` of a set that has nothing left to wait for."""

    failed: list[FailedFit]

    def wait(self) -> list[FailedFit]:
        return self.failed


def train_and_record(context: TrialContext, planned: PlannedFit) -> float | None:
    """Train one fit, store it, record its trials; their val WGA, None where the fit answers no trial."""
    METER.charge(DoneFor(context.experiment, planned.method))
    fitted = run_fit(context, planned.fit)
    figures = [record_trial(context, trial, fitted) for trial in planned.trials]
    return figures[0] if figures else None


class LocalEngine:
    """One fit after the other in this process, without Ray: for a laptop, a notebook or a debugger."""

    @contextmanager
    def pool(self, on_progress: OnProgress) -> Iterator[WorkerPool]:
        yield LocalPool(on_progress)

    def begin_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> PendingFits:
        """All of them, at once: there is nobody else to train them meanwhile."""
        failed = []
        for planned in fits:
            on_fit(FitEvent("started", planned))
            start = time.perf_counter()
            try:
                val_wga = train_and_record(context, planned)
            except Exception as error:
                if isinstance(error, StoreError) and not isinstance(error, DamagedError):
                    raise  # a full disk, or a folder that is gone: no other fit could be stored
                on_fit(FitEvent("failed", planned, seconds=time.perf_counter() - start))
                failed.append(give_up(context, planned, reason(error), traceback.format_exc()))
            else:
                on_fit(FitEvent("done", planned, val_wga, time.perf_counter() - start))
        return EndedFits(failed)

    def renew(self) -> None:
        """There is nothing that goes on."""


class EngineOnDemand:
    """An engine that is joined when the first thing is asked of it: to repeat a finished experiment starts nothing."""

    def __init__(self, join: Callable[[], Engine]) -> None:
        self._engine = cache(join)

    def pool(self, on_progress: OnProgress) -> AbstractContextManager[WorkerPool]:
        return self._engine().pool(on_progress)

    def begin_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> PendingFits:
        return self._engine().begin_fits(context, fits, on_fit) if fits else EndedFits([])

    def renew(self) -> None:
        self._engine().renew()


def give_up(context: TrialContext, planned: PlannedFit, error: str, trace: str) -> FailedFit:
    """Record the error of a fit with each trial that waited for it."""
    for trial in planned.trials:
        record_failure(context, trial, error, trace)
    return FailedFit(planned.fit.fit_key, error, trace)
