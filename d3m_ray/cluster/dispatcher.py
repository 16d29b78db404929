"""The actor that hands fits to the workers, in the order in which they were begun, and lends workers to attribution.

It loads Ray alone, and no torch. Shards go from the driver to the workers, and what travels through here holds no
handle but the one that all fits share: Ray 2.60 ends a process that passes on objects with handles in them
("contained_in_borrowed_ids"), now and then.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from d3m_ray.cluster.calls import Call, FitSet, Loan
from d3m_ray.cluster.news import Death, Duty, Life, News
from d3m_ray.cluster.situation import living, place_of, who_is_there
from d3m_ray.errors import InputError, reason
from d3m_ray.store.errors import UnusableError

ENDED = "ended"  # what is told of every fit
SECONDS = "seconds"  # that it took, told of every fit that a worker ended
ERROR, TRACE = "error", "trace"  # what is told of a fit that failed for good
MAX_CALLS = 100_000  # under way at once: a trial that waits for a worker is one
GATHER_SECONDS = 60.0  # at most, for the trials of a set to have their processes
PAUSE_SECONDS = 5.0  # before a fit's error is told: what is out of reach, a store or a network, may be back by then
REPLACED_SECONDS = 0.1  # between two looks at whether a process has been replaced
ATTRIBUTION = "attribution"  # what a worker that is lent is at
FIRST = (0, 0, 0)  # the place of a loan in the queue: attribution comes before fits, which have (1, set, number)


class Dispatcher:
    """Serves workers from one queue. A worker that has not begun, for want of room on the cluster, holds nothing."""

    def __init__(self) -> None:
        self._queue: asyncio.PriorityQueue[tuple[tuple[int, int, int], int, Call | Loan]] = asyncio.PriorityQueue()
        self._arrivals = itertools.count()
        self._sets: dict[int, FitSet] = {}
        self._loans: dict[int, list[Loan]] = {}  # by pool
        self._num_served = 0
        self._workers: dict[int, Any] = {}  # those that are not lost
        self._duties: dict[int, Duty] = {}
        self._ended: set[str] = set()  # the names of processes that died, or were told to end
        self._deaths: list[Death] = []
        self._refusals: dict[str, str] = {}
        self._lost: RayError | None = None  # why the last one is, where that is no matter of its machine
        self._serving: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    def __repr__(self) -> str:
        """What the dashboard shows."""
        return "dispatcher"

    async def add(self, first: int, workers: Sequence[Any]) -> None:
        """Serve these workers too, each from when it has begun; they are numbered from `first`, in their order.

        Where that was asked before, nothing is done: Ray asks again where it cannot tell whether a call has arrived.
        """
        if first != self._num_served:
            return
        self._lost = None
        for worker in workers:
            self._workers[self._num_served] = worker
            task = asyncio.get_running_loop().create_task(self._serve(self._num_served, worker))
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
        dashboard shows a fit by its name. Asked again, it does nothing, as `add`.
        """
        if of_set in self._sets:
            return
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

        An error is told once: whoever asks again has the fit trained again. It is told after a pause, in which it may
        pass, but for that of a store which no other try would find otherwise.
        """
        fits = self._sets[of_set]
        try:
            told = await asyncio.shield(self._call(of_set, number).answer)
        except RayError as error:
            fits.calls.pop(number, None)
            if isinstance(error, RayTaskError) and not isinstance(error, UnusableError):
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

    async def again(self, number: int, at: str) -> None:
        """Answered when this worker, which is lent and died at that, has another process.

        Raises RayError where it will have none.
        """
        self._is_at(number, at)
        self._note_death(number)
        try:
            await self._begin(number, self._workers[number])
        except RayError as error:
            self._lose(number, error)
            raise
        self._is_at(number, ATTRIBUTION)

    async def news(self) -> News:
        """How the workers fare now. Raises what kept the last of them from beginning."""
        if self._lost is not None:
            raise self._lost
        numbers = living(self._workers)
        cause = "" if numbers else who_is_there()
        duties, deaths = dict(self._duties), tuple(self._deaths)
        return News(len(self._workers), numbers, self._queue.qsize(), self._refusals, cause, duties, deaths)

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
        ended: Life | None = None
        while number in self._workers:
            try:
                begun = await self._begin(number, worker)
            except RayError as error:  # it could not be made there, and would not at another try
                self._lose(number, error)
                return
            if begun == ended:
                await asyncio.sleep(REPLACED_SECONDS)
                continue
            ended = begun if await self._must_be_replaced(number, worker) else None

    async def _begin(self, number: int, worker: Any) -> Life:
        """The process that this worker has, once it has begun. Where that is another, the last one died."""
        life: Life = await worker.begin.options(max_task_retries=-1).remote()
        if number not in self._duties or life != self._duties[number].life:
            self._note_death(number)
            self._duties[number] = Duty(life)
        return life

    def _is_at(self, number: int, what: str) -> None:
        """Note what this worker is at, if it is not lost meanwhile."""
        if number in self._duties:
            self._duties[number] = Duty(self._duties[number].life, what)

    def _note_death(self, number: int, error: RayError | None = None) -> None:
        """Note that the last process of this worker died, once, and unless it was told to end."""
        duty = self._duties.get(number)
        if duty is not None and duty.life.name not in self._ended:
            self._ended.add(duty.life.name)
            cause = reason(error) if isinstance(error, OutOfMemoryError) else ""
            self._deaths.append(Death(number, duty, cause))

    async def _must_be_replaced(self, number: int, worker: Any) -> bool:
        """Hand work to this worker until it may have another process; whether it must, before it has work again."""
        while True:
            was_idle = self._queue.empty()
            place, arrival, work = await self._queue.get()
            if was_idle and not await self._lives(worker):
                self._note_death(number)
                self._queue.put_nowait((place, arrival, work))
                return False
            if isinstance(work, Loan):
                if not work.over.is_set():
                    self._is_at(number, ATTRIBUTION)
                    work.worker.set_result(number)
                    await work.over.wait()
                    self._is_at(number, "")
                    return False  # its process may have died meanwhile
            elif not work.fits.is_over and not await self._is_done(number, worker, work):
                return isinstance(work.answer.exception(), RayTaskError)

    async def _lives(self, worker: Any) -> bool:
        """Whether its process, or its machine, has not died while it had nothing to do."""
        try:
            await worker.begin.options(max_task_retries=0).remote()
        except RayError:
            return False
        return True

    async def _is_done(self, number: int, worker: Any, call: Call) -> bool:
        """Whether the worker answered the call. If not, whoever asks is told why, and the process is replaced."""
        call.take()
        packed, name = call.fits.fits[call.number], call.fits.names[call.number]
        self._is_at(number, name)
        try:
            call.answer.set_result(await worker.fit.options(name=name).remote(call.fits.context, packed))
        except RayError as error:
            call.fail(error)
            if isinstance(error, RayTaskError):  # a CUDA error leaves its process of no use, memory may be short in it
                self._ended.add(self._duties[number].life.name)
                ray.kill(worker, no_restart=False)
            else:
                self._note_death(number, error)
            return False
        self._is_at(number, "")
        return True

    def _lose(self, number: int, error: RayError) -> None:
        """Go on without a worker, and note which machine cannot have one: the fleet has another put elsewhere.

        Where it was the last, and no machine's fault, whoever waits is told why.
        """
        worker = self._workers.pop(number, None)
        if worker is None:
            return
        self._duties.pop(number, None)
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
