"""The actor that hands fits to the workers, each to one that is free. It loads Ray alone, and no torch.

Shards go from the driver to the workers, and what travels through here holds no handle but the one that all fits share:
Ray 2.60 ends a process that passes on objects with handles in them ("contained_in_borrowed_ids"), now and then.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

ENDED = "ended"  # what is told of every fit
ERROR, TRACE = "error", "trace"  # what is told of a fit that failed for good
MAX_CALLS = 100_000  # under way at once: a trial that waits for a worker is one
GATHER_SECONDS = 60.0  # at most, for the trials of a stage to have their processes
PAUSE_SECONDS = 5.0  # before a fit's error is told: what is out of reach, a store or a network, may be back by then
REPLACED_SECONDS = 0.1  # between two looks at whether a process has been replaced


@dataclass(frozen=True, eq=False)
class Call:
    """A fit that a worker is to train, packed, and what follows from it."""

    packed: bytes
    answer: "asyncio.Future[dict[str, Any]]" = field(default_factory=lambda: _loop().create_future())


class Dispatcher:
    """Serves workers from one queue. A worker that has not begun, for want of room on the cluster, holds no call."""

    def __init__(self) -> None:
        self._calls: asyncio.Queue[Call] = asyncio.Queue()
        self._context: Sequence[Any] = ()
        self._fits: Sequence[bytes] = ()
        self._early: dict[int, asyncio.Task[dict[str, Any]]] = {}
        self._ahead: list[asyncio.Task[None]] = []
        self._num_absent = 0  # trials whose processes have yet to start
        self._all_ask = asyncio.Event()
        self._num_workers = self._num_begun = 0
        self._has_news = asyncio.Event()  # a worker has begun, or none is left
        self._lost: RayError | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def add(self, workers: Sequence[Any]) -> None:
        """Serve these workers too, each from when it has begun."""
        self._num_workers += len(workers)
        self._lost = None
        for worker in workers:
            self._start(self._serve(worker))

    async def expect(self, context: Sequence[Any], fits: Sequence[bytes], num_trials: int) -> None:
        """The fits that trials will ask for by number, packed, and a handle to what they share.

        The handle is in a list, which keeps Ray from reading it here.

        So many trials will ask at once, each from a process of its own. Until these have started the fits begin by
        themselves, in the order in which they will be asked for. None is answered before: the process of a trial that
        ended would take the trial of one that still starts, which Tune then ends.
        """
        for task in self._ahead:
            task.cancel()
        self._context, self._fits, self._early, self._num_absent = context, fits, {}, num_trials
        self._all_ask.clear()
        numbers = iter(range(len(fits)))
        self._ahead = [self._start(self._run_ahead(numbers)) for _ in range(num_trials)]

    async def has_room(self) -> None:
        """Answered while at least one worker has begun. Raises what kept the last of them from it."""
        await self._has_news.wait()
        if self._lost is not None:
            raise self._lost

    async def fit(self, number: int) -> dict[str, Any]:
        """What the worker tells that trained this fit. Raises its error, or RayError where its process died."""
        self._num_absent -= 1
        if self._num_absent <= 0:
            self._all_ask.set()
        try:
            told = await (self._early.pop(number) if number in self._early else self._begin_fit(number))
        except RayTaskError:
            await asyncio.sleep(PAUSE_SECONDS)
            raise
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_ask.wait(), GATHER_SECONDS)
        return dict(told)

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = _loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps no task alive
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin_fit(self, number: int) -> "asyncio.Task[dict[str, Any]]":
        return _loop().create_task(self._answer(Call(self._fits[number])))

    async def _run_ahead(self, numbers: Iterator[int]) -> None:
        """Begin one fit after the other, until all trials ask for theirs."""
        for number in numbers:
            if self._all_ask.is_set():
                return
            self._early[number] = self._begin_fit(number)
            await asyncio.wait([self._early[number]])

    async def _answer(self, call: Call) -> dict[str, Any]:
        if self._lost is not None:
            raise self._lost
        self._calls.put_nowait(call)
        return await call.answer

    async def _serve(self, worker: Any) -> None:
        """Hand calls to this worker, one at a time. A process that died, or in which a call failed, is replaced."""
        ended: str | None = None
        while True:
            try:
                begun = await worker.begin.options(max_task_retries=-1).remote()
            except RayError as error:  # it could not be made, and would not at another try
                self._lose(error)
                return
            if begun == ended:
                await asyncio.sleep(REPLACED_SECONDS)
                continue
            self._count(1)
            while await self._is_done(worker, call := await self._calls.get()):
                pass
            self._count(-1)
            ended = begun if isinstance(call.answer.exception(), RayTaskError) else None

    async def _is_done(self, worker: Any, call: Call) -> bool:
        """Whether the worker answered the call. If not, whoever asked is told why, and the process is replaced."""
        try:
            call.answer.set_result(await worker.fit.options(name="fit").remote(self._context, call.packed))
        except RayError as error:
            call.answer.set_exception(error)
            if isinstance(error, RayTaskError):  # a CUDA error leaves its process of no use, memory may be short in it
                ray.kill(worker, no_restart=False)
            return False
        return True

    def _count(self, change: int) -> None:
        self._num_begun += change
        if self._num_begun:
            self._has_news.set()
        else:
            self._has_news.clear()

    def _lose(self, error: RayError) -> None:
        """Go on without a worker; where it was the last, whoever waits is told why."""
        self._num_workers -= 1
        if self._num_workers:
            return
        self._lost = error
        self._has_news.set()
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                self._calls.get_nowait().answer.set_exception(error)


def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()
