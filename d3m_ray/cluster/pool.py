"""The worker pool of Ray actors: pure steps over shards, on workers that an engine's fleet lends."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import ObjectLostError, RayError, RayTaskError

from d3m_ray.cluster.fleet import ROUND_SECONDS, Fleet
from d3m_ray.cluster.kept import Kept, Origin, hold, lost_sources
from d3m_ray.pool import OnProgress, ignore_progress
from d3m_ray.wording import counted

SHARDS_PER_WORKER = 2  # sent at once: the next one is there while the driver handles a result
MAX_TRIES = 4  # of a shard whose process died, or that lacks what a machine took with it: then its error is raised
MAX_NAMES = 16  # of the shards of a pass: the dashboard has a row for each name


def shard_name(label: str, index: int, num_shards: int) -> str:
    """What the dashboard calls a shard, counted from 1; neighbours share a name where there are many.

    As "trak scores, shard 3/16" or "trak scores, shards 17-24/128".
    """
    size = -(-num_shards // MAX_NAMES)
    first = index // size * size + 1
    last = min(first + size - 1, num_shards)
    return f"{label}, shard{'' if first == last else 's'} {first}{'' if first == last else f'-{last}'}/{num_shards}"


class _Pass:
    """Results that are made over the workers: which wait, and how often each was begun."""

    def __init__(self, label: str, origins: Sequence[Origin]) -> None:
        self.label, self.origins = label, origins
        self.waiting = deque(range(len(origins)))
        self.num_done = 0
        self._num_tries: Counter[int] = Counter()

    @property
    def is_over(self) -> bool:
        return self.num_done >= len(self.origins)

    def begin_again(self, index: int, error: RayError) -> None:
        """Make it before all that waits. Raises the error where that was tried often enough."""
        self._num_tries[index] += 1
        if self._num_tries[index] >= MAX_TRIES:
            raise error
        self.waiting.appendleft(index)


class RayPool:
    """A `WorkerPool` of at most so many of a fleet's workers, else of all, each from when it has ended its fit.

    Use it in a `with` block, which begins when there is one, and at whose end they take fits again. What a worker was
    at that dies goes to others, and what was kept on a machine that is gone is made again.
    """

    def __init__(self, fleet: Fleet, max_workers: int | None, on_progress: OnProgress = ignore_progress) -> None:
        self._on_progress = on_progress
        self._fleet, self._number, self._max_workers = fleet, fleet.next_number(), max_workers
        self._asked: set[Any] = set()
        self._living: list[int] = []  # the numbers of those that are lent and have not died since
        self._returning: dict[Any, int] = {}  # by what answers when they have another process
        self._room = fleet.room("attribution")
        self._for_a_worker = fleet.patience("a worker to end its fit: attribution takes it before the next fit")
        self.num_workers = self._ask()
        fleet.grow(self.num_workers)

    def __enter__(self) -> "RayPool":
        """Raises RunError where the cluster has room for no worker."""
        try:
            while not self._living:
                self._wait_for([])
        except BaseException:  # Ctrl-C too: a notebook's engine goes on
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """What is still running of a map that was given up runs to its end, and fits begin behind it."""
        self._fleet.dispatcher.take_back.remote(self._number)

    def put(self, value: Any) -> Any:
        return self._fleet.put(value)

    def map(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> Iterator[Any]:
        arguments = list(zip(*shards, strict=True))  # held to the end: some are kept results
        made = _Pass(label, _origins(label, step, shared, arguments))
        ready: dict[int, Any] = {}
        following = 0
        for index, handle in self._run(made, self._on_progress):
            ready[index] = handle
            while following in ready:
                try:
                    result = ray.get(ready.pop(following))  # the popped handle frees the result once it was used
                except ObjectLostError as error:
                    made.num_done -= 1
                    made.begin_again(following, error)
                    break
                except RayError:
                    self._fleet.check_own_ray()
                    raise
                yield result
                following += 1

    def map_kept(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> list[Any]:
        arguments = list(zip(*shards, strict=True))
        origins = _origins(label, step, shared, arguments)
        handles = dict(self._run(_Pass(label, origins), self._on_progress))
        return hold(origins, (handles[index] for index in range(len(origins))))

    def _run(self, made: _Pass, on_progress: OnProgress) -> Iterator[tuple[int, Any]]:
        """Index and handle of each result, as they are made. The worker with room takes the next."""
        running: dict[Any, tuple[int, int, Any]] = {}  # by what says that it ended: index, worker, handle of the result
        while not made.is_over:
            while made.waiting and (number := self._worker_with_room(running)) is not None:
                index = made.waiting.popleft()
                ended, result = self._begin(made.origins[index], number)
                running[ended] = (index, number, result)
            if made.waiting:
                self._ask()
            for ended in self._wait_for([*running]):
                index, number, result = running.pop(ended)
                try:
                    ray.get(ended)
                except RayError as error:
                    with suppress(RayError):
                        ray.get(result, timeout=0)  # the same error: Ray prints one that nobody has looked at
                    self._look_into(error, made, index, number)
                    continue
                made.num_done += 1
                on_progress(made.label, made.num_done, len(made.origins))
                yield index, result

    def _begin(self, origin: Origin, number: int) -> Any:
        """Have the worker make a result: what says that it ended, and the handle of the result."""
        method = self._fleet.workers[number].shard.options(name=origin.name, num_returns=2)
        return method.remote(origin.step, origin.shared, *origin.arguments())

    def _look_into(self, error: RayError, made: _Pass, index: int, number: int) -> None:
        """Have it made again where a machine or a process is why it was not. Raises the error of the step."""
        is_lost = isinstance(getattr(error, "cause", error), ObjectLostError)
        if not is_lost and isinstance(error, RayTaskError):
            raise error
        self._fleet.check_own_ray()
        made.begin_again(index, error)
        if is_lost:
            self._make_again(made.origins)
        elif number in self._living:
            self._living.remove(number)
            self._returning[self._fleet.dispatcher.again.remote(number, made.origins[index].name)] = number

    def _make_again(self, made: Sequence[Origin]) -> None:
        """Put what these are made from, and a machine took with it, in the place of what was lost."""
        held: list[Kept] = []  # also what nobody holds but for what is made from it here
        for origins in lost_sources(made):
            what = counted(len(origins), "result")
            self._fleet.say(f"{what} kept on a machine that is gone, to be computed again ({origins[0].name})")
            handles = dict(self._run(_Pass(origins[0].name, origins), ignore_progress))
            held += hold(origins, (handles[place] for place in range(len(origins))))

    def _worker_with_room(self, running: Mapping[Any, tuple[int, int, Any]]) -> int | None:
        """The number of the worker that has the fewest shards, if it may have another."""
        num_at = Counter(number for _, number, _ in running.values())
        number = min(self._living[: self._max_workers], key=lambda number: num_at[number], default=None)
        return None if number is None or num_at[number] >= SHARDS_PER_WORKER else number

    def _wait_for(self, running: list[Any]) -> list[Any]:
        """Those that have ended, after a while at most; meanwhile workers come, and come back.

        Raises RunError where no worker has lived for too long.
        """
        handles = [*running, *self._asked, *self._returning]
        finished, _ = ray.wait(handles, timeout=ROUND_SECONDS, fetch_local=False)
        for handle in finished:
            if handle in self._asked:
                self._asked.remove(handle)
                self._living.append(self._fleet.answer(handle))
            elif handle in self._returning:
                self._take_back_again(handle)
        if self._room.look() and not self._living:
            self._for_a_worker.spend()
            self._ask()
        elif self._living:
            self._for_a_worker.renew()
        return [handle for handle in finished if handle in running]

    def _take_back_again(self, handle: Any) -> None:
        """Go on with a worker that has another process, or without one that will have none."""
        number = self._returning.pop(handle)
        try:
            ray.get(handle)
        except RayTaskError:  # which the dispatcher has noted
            return
        except RayError:
            self._fleet.answer(handle)
        self._living.append(number)

    def _ask(self) -> int:
        """Ask for a worker for each slot that the cluster had at the last look; how many that are in all."""
        num_workers = self._max_workers or max(1, self._fleet.num_slots)
        num_more = num_workers - len(self._asked) - len(self._living)
        self._asked |= {self._fleet.dispatcher.lend.remote(self._number) for _ in range(num_more)}
        return num_workers


def _origins(label: str, step: Callable[..., Any], shared: Any, arguments: Sequence[Sequence[Any]]) -> list[Origin]:
    names = (shard_name(label, index, len(arguments)) for index in range(len(arguments)))
    return [Origin(name, step, shared, of) for name, of in zip(names, arguments, strict=True)]
