"""The worker pool of Ray actors: pure steps over shards, on the workers that an engine keeps."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from d3m_ray.cluster.fleet import ROUND_SECONDS, Fleet
from d3m_ray.pool import OnProgress, ignore_progress

SHARDS_PER_WORKER = 2  # asked for at once: the next one waits at the dispatcher while the driver handles a result


class RayPool:
    """A `WorkerPool` of so many of a fleet's workers, which outlive it."""

    def __init__(self, fleet: Fleet, num_workers: int, on_progress: OnProgress = ignore_progress) -> None:
        self.num_workers = num_workers
        self._on_progress = on_progress
        self._dispatcher = fleet.dispatcher
        fleet.grow(num_workers)
        ray.get(self._dispatcher.limit_shards.remote(num_workers))
        self._room = fleet.room(
            f"the cluster to start one of {num_workers} attribution workers",
            "where there is room that takes up to a minute; "
            f"each takes {fleet.cpus_per_worker:g} CPU and {fleet.gpus_per_worker:g} GPU of one machine: "
            "--num-workers, --cpus-per-trial and --gpus-per-worker say how much",
        )

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
        """Index and handle of each shard's result, as they finish. Raises the error of the first that fails."""
        arguments = list(zip(*shards, strict=True))
        waiting = iter(enumerate(arguments))
        running: dict[Any, int] = {}  # what the dispatcher will answer -> index of the shard
        num_done = 0
        self._room.renew()
        while num_done < len(arguments):
            while len(running) < SHARDS_PER_WORKER * self.num_workers and (shard := next(waiting, None)) is not None:
                call = ray.put((step, shared, *shard[1]))
                running[self._dispatcher.shard.remote([call], label)] = shard[0]
            finished, _ = ray.wait(list(running), num_returns=1, timeout=ROUND_SECONDS)
            if not finished:
                self._room.look()
            for answer in finished:
                (handle,) = ray.get(answer)
                num_done += 1
                self._on_progress(label, num_done, len(arguments))
                yield running.pop(answer), handle
