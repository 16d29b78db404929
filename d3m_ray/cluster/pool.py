"""The worker pool of Ray actors: pure steps over shards, on workers that an engine's fleet lends."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ray

from d3m_ray.cluster.fleet import ROUND_SECONDS, Fleet
from d3m_ray.pool import OnProgress, ignore_progress

SHARDS_PER_WORKER = 2  # sent at once: the next one is there while the driver handles a result
MAX_SHARD_RETRIES = 10  # of a shard whose process died: Ray counts a death more than once while another starts
MAX_MOVES = 3  # of a shard to another worker: one that ends its process each time stays with its last, and fails
MAX_NAMES = 16  # of the shards of a pass: the dashboard has a row for each name


def shard_name(label: str, index: int, num_shards: int) -> str:
    """What the dashboard calls a shard, counted from 1; neighbours share a name where there are many.

    As "trak scores, shard 3/16" or "trak scores, shards 17-24/128".
    """
    size = -(-num_shards // MAX_NAMES)
    first = index // size * size + 1
    last = min(first + size - 1, num_shards)
    return f"{label}, shard{'' if first == last else 's'} {first}{'' if first == last else f'-{last}'}/{num_shards}"


class RayPool:
    """A `WorkerPool` of at most so many of a fleet's workers, else of all, each from when it has ended its fit.

    Use it in a `with` block, which begins when there is one, and at whose end they take fits again.
    """

    def __init__(self, fleet: Fleet, max_workers: int | None, on_progress: OnProgress = ignore_progress) -> None:
        self._on_progress = on_progress
        self._fleet, self._number, self._max_workers = fleet, fleet.next_number(), max_workers
        self._asked: set[Any] = set()
        self._lent: list[int] = []  # by their numbers
        self._living: set[int] = set()  # of those lent, at the last look
        self._room = fleet.room("attribution")
        self._num_done, self._for_the_lost = 0, fleet.patience("attribution's workers that were lost", fleet.fix)
        self.num_workers = self._ask()
        fleet.grow(self.num_workers)

    def __enter__(self) -> "RayPool":
        """Raises RunError where the cluster has room for no worker."""
        waiting = self._fleet.patience("a worker to end its fit: attribution takes it before the next fit")
        try:
            while not self._lent:
                finished, _ = ray.wait([*self._asked], timeout=ROUND_SECONDS, fetch_local=False)
                for handle in finished:
                    self._take_worker(handle)
                if not finished and self._room.look():
                    waiting.spend()
                    self._ask()
        except BaseException:  # Ctrl-C too: a notebook's engine goes on
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """What is still running of a map that was given up runs to its end, and fits begin behind it."""
        self._fleet.dispatcher.take_back.remote(self._number)

    def put(self, value: Any) -> Any:
        return ray.put(value)

    def map(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> Iterator[Any]:
        ready: dict[int, Any] = {}
        following = 0
        for index, handle in self._run(label, step, shared, *shards):
            ready[index] = handle
            while following in ready:
                yield ray.get(ready.pop(following))  # the popped handle frees the result once it was used
                following += 1

    def map_kept(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> list[Any]:
        return [handle for _, handle in sorted(self._run(label, step, shared, *shards), key=lambda pair: pair[0])]

    def _run(
        self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Index and handle of each shard's result, as they finish. The worker with room takes the next shard.

        What a worker had that lives no longer is handed to others; it has shards again when it lives again.
        """
        arguments = list(zip(*shards, strict=True))
        waiting = deque(range(len(arguments)))
        running: dict[Any, tuple[int, int]] = {}  # handle -> index, and the number of the worker at it
        num_moves: Counter[int] = Counter()
        num_done = 0
        while num_done < len(arguments):
            while waiting and (number := self._worker_with_room(running)) is not None:
                index = waiting.popleft()
                worker, name = self._fleet.workers[number], shard_name(label, index, len(arguments))
                method = worker.shard.options(name=name, max_task_retries=MAX_SHARD_RETRIES)
                running[method.remote(step, shared, *arguments[index])] = (index, number)
            finished, _ = ray.wait([*running, *self._asked], timeout=ROUND_SECONDS, fetch_local=False)
            for handle in finished:
                if handle in self._asked:
                    self._take_worker(handle)
                    continue
                index, _ = running.pop(handle)
                num_done += 1
                self._on_progress(label, num_done, len(arguments))
                yield index, handle
            if self._has_looked():
                waiting.extendleft(self._moved(running, num_moves))
                if waiting:
                    self._ask()
                self._bear_with_the_lost(num_done)

    def _worker_with_room(self, running: Mapping[Any, tuple[int, int]]) -> int | None:
        """The number of the lent worker that lives and has the fewest shards, if it may have another."""
        num_at = Counter(number for _, number in running.values())
        number = min(self._living, key=lambda number: num_at[number], default=None)
        return None if number is None or num_at[number] >= SHARDS_PER_WORKER else number

    def _has_looked(self) -> bool:
        """Whether it was looked again which of those lent live. Raises RunError where no worker did for too long."""
        seen = self._room.num_looks
        self._room.look()
        if self._room.num_looks == seen:
            return False
        self._living = {number for number in self._lent if number in self._room.living}
        return True

    def _moved(self, running: dict[Any, tuple[int, int]], num_moves: Counter[int]) -> list[int]:
        """The shards of workers that live no longer, which run no more, but for those that may be why."""
        moved = []
        for handle, (index, number) in [*running.items()]:
            if number not in self._living and num_moves[index] < MAX_MOVES:
                del running[handle]
                ray.cancel(handle)
                num_moves[index] += 1
                moved.append(index)
        return moved

    def _bear_with_the_lost(self, num_done: int) -> None:
        """Say that what lost workers had computed is waited for, where nothing ends. Raises RunError after too long.

        Shards may read what others kept on a machine that is gone: Ray computes that again where its worker is again.
        """
        if num_done != self._num_done or self._living.issuperset(self._lent):
            self._num_done = num_done
            self._for_the_lost.renew()
        else:
            self._for_the_lost.spend()

    def _ask(self) -> int:
        """Ask for a worker for each slot that the cluster had at the last look; how many that are in all."""
        num_workers = self._max_workers or max(1, self._fleet.num_slots)
        num_more = num_workers - len(self._asked) - len(self._living)
        self._asked |= {self._fleet.dispatcher.lend.remote(self._number) for _ in range(num_more)}
        return num_workers

    def _take_worker(self, handle: Any) -> None:
        """Take the worker that was lent. Raises RunError where there will be none."""
        self._asked.remove(handle)
        number = self._fleet.answer(handle)
        self._lent.append(number)
        self._living.add(number)
