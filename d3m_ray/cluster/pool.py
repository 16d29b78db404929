"""The worker pool of Ray actors: pure steps over shards, on workers that an engine's fleet lends."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from d3m_ray.cluster.fleet import ROUND_SECONDS, Fleet
from d3m_ray.pool import OnProgress, ignore_progress

SHARDS_PER_WORKER = 2  # sent at once: the next one is there while the driver handles a result
MAX_SHARD_RETRIES = 10  # of a shard whose process died: Ray counts a death more than once while another starts
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
    """A `WorkerPool` of at most so many of a fleet's workers, each from when it has ended its fit.

    Use it in a `with` block, which begins when there is one, and at whose end they take fits again.
    """

    def __init__(self, fleet: Fleet, num_workers: int, on_progress: OnProgress = ignore_progress) -> None:
        self.num_workers = num_workers
        self._on_progress = on_progress
        self._fleet, self._number = fleet, fleet.next_number()
        fleet.grow(num_workers)
        self._asked = {fleet.dispatcher.lend.remote(self._number) for _ in range(num_workers)}
        self._lent: list[Any] = []
        self._room = fleet.room("attribution")

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
        """Index and handle of each shard's result, as they finish. The worker with room takes the next shard."""
        arguments = list(zip(*shards, strict=True))
        waiting = iter(enumerate(arguments))
        running: dict[Any, tuple[int, Any]] = {}  # handle -> index, and the worker at it
        room = [worker for _ in range(SHARDS_PER_WORKER) for worker in self._lent]
        num_done = 0
        while num_done < len(arguments):
            while room and (shard := next(waiting, None)) is not None:
                worker = room.pop(0)
                name = shard_name(label, shard[0], len(arguments))
                method = worker.shard.options(name=name, max_task_retries=MAX_SHARD_RETRIES)
                running[method.remote(step, shared, *shard[1])] = (shard[0], worker)
            finished, _ = ray.wait([*running, *self._asked], timeout=ROUND_SECONDS, fetch_local=False)
            for handle in finished:
                if handle in self._asked:
                    room += self._take_worker(handle)
                    continue
                index, worker = running.pop(handle)
                room.append(worker)
                num_done += 1
                self._on_progress(label, num_done, len(arguments))
                yield index, handle

    def _take_worker(self, handle: Any) -> list[Any]:
        """The room of the worker that was lent. Raises what kept all of them from beginning."""
        self._asked.remove(handle)
        self._lent.append(self._fleet.workers[ray.get(handle)])
        return self._lent[-1:] * SHARDS_PER_WORKER
