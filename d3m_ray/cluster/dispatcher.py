"""The actor that hands fits to the workers, in the order in which they were begun, and lends workers to attribution.

It loads Ray alone, and no torch. Shards go from the driver to the workers, and what travels through here holds no
handle but the one that all fits share: Ray 2.60 ends a process that passes on objects with handles in them
("contained_in_borrowed_ids"), now and then.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from d3m_ray.cluster.situation import living, place_of, who_is_there
from d3m_ray.errors import InputError, reason

ENDED = "ended"  # what is told of every fit
ERROR, TRACE = "error", "trace"  # what is told of a fit that failed for good
MAX_CALLS = 100_000  # under way at once: a trial that waits for a worker is one
GATHER_SECONDS = 60.0  # at most, for the trials of a set to have their processes
PAUSE_SECONDS = 5.0  # before a fit's error is told: what is out of reach, a store or a network, may be back by then
REPLACED_SECONDS = 0.1  # between two looks at whether a process has been replaced
FIRST = (0, 0, 0)  # the place of a loan in the queue: attribution comes before fits, which have (1, set, number)


class FitSet:
    """Fits that were begun together, packed, a handle to what they share, and the trials that will ask for them."""

    def __init__(
        self, context: Sequence[Any], fits: Sequence[bytes], num_trials: int, names: Sequence[str] = ()
    ) -> None:
        self.context, self.fits = context, fits
        self.names = names or ["fit"] * len(fits)
        self.calls: dict[int, Call] = {}
        self.is_over = False
        self._num_waiting, self._num_absent = len(fits), num_trials  # fits without a worker, trials without a process
        self.all_taken, self.all_ask = asyncio.Event(), asyncio.Event()

    def take(self) -> None:
        """One of the fits waits no longer: a worker has it, or there is none."""
        self._num_waiting -= 1
        if self._num_waiting <= 0:
            self.all_taken.set()

    def count_trial(self) -> None:
        """A trial has asked, so it has a process."""
        self._num_absent -= 1
        if self._num_absent <= 0:
            self.all_ask.set()

    def end(self) -> None:
        """Nobody asks for the fits any more."""
        self.is_over = True
        self.all_taken.set()


@dataclass(frozen=True, eq=False)
class Call:
    """A fit that a worker is to train, and what follows from it."""

    fits: FitSet
    number: int
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    answer: "asyncio.Future[dict[str, Any]]" = field(default_factory=lambda: _loop().create_future())

    def take(self) -> None:
        """It waits no longer."""
        self.fits.take()
        self.taken.set()

    def fail(self, error: RayError) -> None:
        """Tell whoever asks why no worker trained it."""
        if not self.taken.is_set():
            self.take()
        self.answer.set_exception(error)
        self.answer.exception()  # looked at: where nobody asks, asyncio has nothing to say of it


@dataclass(frozen=True, eq=False)
class Loan:
    """A worker that attribution asks for: its number, None where it was not needed in the end."""

    worker: "asyncio.Future[int | None]" = field(default_factory=lambda: _loop().create_future())
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """The worker is given back, or not wanted any more."""
        self.over.set()
        if not self.worker.done():
            self.worker.set_result(None)

    def fail(self, error: RayError) -> None:
        """Tell the pool why there is no worker."""
        if not self.worker.done():
            self.worker.set_exception(error)
            self.worker.exception()


@dataclass(frozen=True)
class News:
    """How the workers fare."""

    num_workers: int
    """Of all that were added, without those that are lost."""
    living: frozenset[int]
    """The numbers of those that have a process."""
    num_waiting: int
    """Fits and loans that no worker has taken, at most: some may be over."""
    refusals: dict[str, str]
    """By the id of each machine that lost a worker: its address, and why it is not to take part."""
    cause: str
    """Where no worker lives: who else is on the cluster."""


class Dispatcher:
    """Serves workers from one queue. A worker that has not begun, for want of room on the cluster, holds nothing."""

    def __init__(self) -> None:
        self._queue: asyncio.PriorityQueue[tuple[tuple[int, int, int], int, Call | Loan]] = asyncio.PriorityQueue()
        self._arrivals = itertools.count()
        self._sets: dict[int, FitSet] = {}
        self._loans: dict[int, list[Loan]] = {}  # by pool
        self._num_served = 0
        self._workers: dict[int, Any] = {}  # those that are not lost
        self._refusals: dict[str, str] = {}
        self._lost: RayError | None = None  # why the last one is, where that is no matter of its machine
        self._serving: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    def __repr__(self) -> str:
        """What the dashboard shows."""
        return "dispatcher"

    async def add(self, workers: Sequence[Any]) -> None:
        """Serve these workers too, each from when it has begun. They are numbered as they come."""
        self._lost = None
        for worker in workers:
            self._workers[self._num_served] = worker
            task = _loop().create_task(self._serve(self._num_served, worker))
            self._num_served += 1
            self._serving.add(task)
            task.add_done_callback(self._serving.discard)

    async def expect(
        self, of_set: int, context: Sequence[Any], fits: Sequence[bytes], num_trials: int, names: Sequence[str] = ()
    ) -> None:
        """Hand out these fits, packed, after those of the sets with lower numbers; trials ask for them by number.

        The handle to what the fits share is in a list, which keeps Ray from reading it here. So many trials will ask
        at once, each from a process of its own. Fits do not wait for these, but none is answered before all have one:
        the process of a trial that ended would take the trial of one that still starts, which Tune then ends. The
        dashboard shows a fit by its name.
        """
        self._sets[of_set] = FitSet(context, fits, num_trials, names)
        for number in range(len(fits)):
            self._call(of_set, number)

    async def turn(self, of_set: int) -> None:
        """Answered when workers have taken every fit of the sets with lower numbers: trials are of no use before."""
        for number, fits in list(self._sets.items()):
            if number < of_set:
                await fits.all_taken.wait()

    async def forget(self, of_set: int) -> None:
        """Hand out no more of this set; nobody asks for it."""
        self._sets.pop(of_set).end()

    async def begun(self, of_set: int, number: int) -> None:
        """Answered when a worker has taken this fit, or none ever will. The first that a trial asks, for each try."""
        self._sets[of_set].count_trial()
        await self._call(of_set, number).taken.wait()

    async def fit(self, of_set: int, number: int) -> dict[str, Any]:
        """What the worker tells that trained this fit. Raises its error, or RayError where its process died.

        An error is told once: whoever asks again has the fit trained again.
        """
        fits = self._sets[of_set]
        try:
            told = await asyncio.shield(self._call(of_set, number).answer)
        except RayError as error:
            fits.calls.pop(number, None)
            if isinstance(error, RayTaskError):
                await asyncio.sleep(PAUSE_SECONDS)
            raise
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(fits.all_ask.wait(), GATHER_SECONDS)
        return dict(told)

    async def lend(self, pool: int) -> int | None:
        """The number of a worker, once one has ended its fit; no fit is handed to it until the pool gives it back."""
        if self._lost is not None:
            raise self._lost
        loan = Loan()
        self._loans.setdefault(pool, []).append(loan)
        self._put(FIRST, loan)
        return await loan.worker

    async def take_back(self, pool: int) -> None:
        """Hand fits to all workers of this pool again."""
        for loan in self._loans.pop(pool, ()):
            loan.end()

    async def news(self) -> News:
        """How the workers fare now. Raises what kept the last of them from beginning."""
        if self._lost is not None:
            raise self._lost
        numbers = living(self._workers)
        cause = "" if numbers else who_is_there()
        return News(len(self._workers), numbers, self._queue.qsize(), self._refusals, cause)

    def _call(self, of_set: int, number: int) -> Call:
        """The call of this fit, which is put in the queue where it is not there yet."""
        fits = self._sets[of_set]
        if number not in fits.calls:
            fits.calls[number] = call = Call(fits, number)
            if self._lost is None:
                self._put((1, of_set, number), call)
            else:
                call.fail(self._lost)
        return fits.calls[number]

    def _put(self, place: tuple[int, int, int], work: Call | Loan) -> None:
        self._queue.put_nowait((place, next(self._arrivals), work))

    async def _serve(self, number: int, worker: Any) -> None:
        """Hand work to this worker, one at a time. A process that died, or in which a call failed, is replaced."""
        ended: str | None = None
        while True:
            try:
                begun = await worker.begin.options(max_task_retries=-1).remote()
            except RayError as error:  # it could not be made there, and would not at another try
                self._lose(number, error)
                return
            if begun == ended:
                await asyncio.sleep(REPLACED_SECONDS)
                continue
            ended = begun if await self._must_be_replaced(number, worker) else None

    async def _must_be_replaced(self, number: int, worker: Any) -> bool:
        """Hand work to this worker until it may have another process; whether it must, before it has work again."""
        while True:
            was_idle = self._queue.empty()
            place, arrival, work = await self._queue.get()
            if was_idle and not await self._lives(worker):
                self._queue.put_nowait((place, arrival, work))
                return False
            if isinstance(work, Loan):
                if not work.over.is_set():
                    work.worker.set_result(number)
                    await work.over.wait()
                    return False  # its process may have died meanwhile
            elif not work.fits.is_over and not await self._is_done(worker, work):
                return isinstance(work.answer.exception(), RayTaskError)

    async def _lives(self, worker: Any) -> bool:
        """Whether its process, or its machine, has not died while it had nothing to do."""
        try:
            await worker.begin.options(max_task_retries=0).remote()
        except RayError:
            return False
        return True

    async def _is_done(self, worker: Any, call: Call) -> bool:
        """Whether the worker answered the call. If not, whoever asks is told why, and the process is replaced."""
        call.take()
        try:
            packed, name = call.fits.fits[call.number], call.fits.names[call.number]
            call.answer.set_result(await worker.fit.options(name=name).remote(call.fits.context, packed))
        except RayError as error:
            call.fail(error)
            if isinstance(error, RayTaskError):  # a CUDA error leaves its process of no use, memory may be short in it
                ray.kill(worker, no_restart=False)
            return False
        return True

    def _lose(self, number: int, error: RayError) -> None:
        """Go on without a worker, and note which machine cannot have one: the fleet has another put elsewhere.

        Where it was the last, and no machine's fault, whoever waits is told why.
        """
        worker = self._workers.pop(number)
        place = place_of(worker)
        ray.kill(worker)  # it may live, and hold its core
        if place is not None:
            cause = getattr(error, "cause", None)
            why = str(cause) if isinstance(cause, InputError) else f"does not run a worker ({reason(error)})"
            self._refusals = {**self._refusals, place[0]: f"{place[1]}: {why}"}
            return
        if self._workers:
            return
        self._lost = error
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                *_, work = self._queue.get_nowait()
                work.fail(error)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
