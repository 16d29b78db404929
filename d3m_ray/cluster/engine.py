"""The engine on Ray: attribution and fits on the workers of one cluster."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import cast

import ray
import ray._private.worker

from d3m_ray.cluster.fleet import Fleet, RayGoneError
from d3m_ray.cluster.joining import join
from d3m_ray.cluster.machines import Terms, check_cluster_offers, check_this_machine_offers, every_machine_checked
from d3m_ray.cluster.pool import RayPool
from d3m_ray.cluster.sweep import TuneRun
from d3m_ray.pool import OnProgress, WorkerPool
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import OnFit, OnLost, PendingFits, PlannedFit
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.trials.trial import TrialContext
from d3m_ray.waiting import Say, bounded, has_left_work, say_plainly

STOP_SECONDS = 3.0  # at most, for Tune to end the trials of all runs whose dispatcher is gone
LEAVE_SECONDS = 3.0  # at most, for a Ray that may have been ended too to end its processes


@contextmanager
def connected(
    execution: ExecutionConfig,
    store: Store,
    say: Say = say_plainly,
    metadata: Mapping[str, str] | None = None,
    on_lost: OnLost | None = None,
) -> Iterator["RayEngine"]:
    """The engine of the cluster that `execution` names, left again at the end of the block.

    Ray's dashboard has the metadata with the job, whose name is its `job_name`.

    Raises ConnectionError where the cluster cannot be joined or started, InputError where this machine lacks what a
    worker or a trial takes, or where a cluster's machines do not all have this package and see the store. `say` is told
    of every wait, and `on_lost`, or else `say`, of every worker and machine that is lost.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joined_here = not ray.is_initialized()
    with _without_the_lines_of_ray() if joined_here else nullcontext():
        try:
            with ExitStack() as while_it_runs:
                terms = None
                if joined_here and _join(execution.address, say, metadata):
                    check_this_machine_offers(execution)
                else:
                    check_cluster_offers(execution, say)
                    terms = while_it_runs.enter_context(every_machine_checked(store, say))
                yield while_it_runs.enter_context(RayEngine(execution, say, terms, on_lost))
        except RayGoneError:  # nothing to leave, and little time to say so
            if joined_here:
                bounded(ray.shutdown, 0.0)
            raise
        except KeyboardInterrupt:  # a signal to all processes of a job ends Ray's too, and leaving would wait for them
            if joined_here:
                bounded(ray.shutdown, LEAVE_SECONDS)
            raise
        finally:
            if joined_here and not has_left_work():
                ray.shutdown()


def _join(address: str, say: Say, metadata: Mapping[str, str] | None) -> bool:
    """As `join`, and signals end this process as they did before, where that was decided.

    Ray takes SIGTERM for itself. A terminal that closes sends SIGHUP to all processes of a run: those of a Ray that is
    started here block it, as they do Ctrl-C, or there would be no cluster left to be asked to end the run.
    """
    handler = signal.getsignal(signal.SIGTERM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        started_here = join(address, say, metadata)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)  # what came meanwhile, comes now
    if callable(handler) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    return started_here


@contextmanager
def _without_the_lines_of_ray() -> Iterator[None]:
    """Keep Ray from printing, between the results on the standard output, what befalls its processes.

    A run says it in its own words, and Ray's are in the logs of its session. Whatever `ray.init` is told, it prints
    them, but for this switch, which its own debugger uses.
    """
    before = ray._private.worker._worker_logs_enabled
    ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray._private.worker._worker_logs_enabled = before and not has_left_work()


class RayEngine:
    """Attribution on the workers of a fleet, and fits under Ray Tune, on the same workers where both take as much.

    Attribution is then lent each worker that ends its fit, while others are still at theirs. Where a fit takes other
    GPUs than attribution, the workers of the one are ended when the other begins, for they would keep the cores and
    GPUs, and every fit that was begun is waited for first. Use it in a `with` block, which ends the workers, and at
    an exception what they are at. A machine that joins meanwhile is held to the terms.
    """

    def __init__(
        self,
        execution: ExecutionConfig,
        say: Say = say_plainly,
        terms: Terms | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        self._execution, self._say, self._terms, self._on_lost = execution, say, terms, on_lost
        self._fleet: Fleet | None = None
        self._runs: list[TuneRun] = []

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._end(kind)

    def renew(self) -> None:
        self._end()

    def _end(self, kind: type[BaseException] | None = None) -> None:
        """End the workers, and all that was begun; without waiting for long for a Ray that may be ended too."""
        for run in self._runs:
            run.stop()
        if kind is not None and issubclass(kind, RayGoneError):
            for run in self._runs:
                run.join(0.0)
            return
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            bounded(self._end_fleet, LEAVE_SECONDS)
        else:
            self._end_fleet()
        deadline = time.monotonic() + STOP_SECONDS
        for run in self._runs:
            run.join(max(0.0, deadline - time.monotonic()))
        self._runs = []

    @contextmanager
    def pool(self, on_progress: OnProgress) -> Iterator[WorkerPool]:
        fleet = self._fleet_of(self._execution.gpus_per_worker)
        with RayPool(fleet, self._execution.num_workers, on_progress) as pool:
            yield cast(WorkerPool, pool)

    def begin_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> PendingFits:
        run = TuneRun(context, fits, on_fit, self._fleet_of(self._execution.gpus_per_trial))
        self._runs = [*(begun for begun in self._runs if not begun.is_over), run]
        return run

    def _fleet_of(self, gpus: float) -> Fleet:
        """The workers that take so many GPUs each. Raises as `PendingFits.wait`."""
        if self._fleet is not None and self._fleet.gpus_per_worker != gpus:
            for run in self._runs:
                run.wait()
            self._end_fleet()
        if self._fleet is None:
            each, wait = self._execution.cpus_per_trial, self._execution.max_wait_seconds
            self._fleet = Fleet(each, gpus, wait, self._say, self._terms, self._on_lost)
        return self._fleet

    def _end_fleet(self) -> None:
        if self._fleet is not None:
            self._fleet.end()
            self._fleet = None
