"""The worker pool of Ray actors: pure steps over shards, on the workers that an engine keeps."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from d3m_ray.cluster.fleet import ROUND_SECONDS, Fleet
from d3m_ray.pool import OnProgress, ignore_progress

SHARDS_PER_WORKER = 2  # sent at once: the next one is there while the driver handles a result
MAX_SHARD_RETRIES = 10  # of a shard whose process died: Ray counts a death more than once while another starts


class RayPool:
    """A `WorkerPool` of so many of a fleet's workers, which outlive it."""

    def __init__(self, fleet: Fleet, num_workers: int, on_progress: OnProgress = ignore_progress) -> None:
        self.num_workers = num_workers
        self._on_progress = on_progress
        fleet.grow(num_workers)
        # Asked of all: any may be the one that finds room on the cluster.
        self._starting = {worker.begin.options(max_task_retries=-1).remote(): worker for worker in fleet.workers}
        self._begun: list[Any] = []
        self._patience = fleet.patience(
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
        """Index and handle of each shard's result, as they finish. The worker with room takes the next shard.

        A shard goes to a worker that has begun only: one that finds no room on the cluster would keep it for ever.
        """
        arguments = list(zip(*shards, strict=True))
        waiting = iter(enumerate(arguments))
        running: dict[Any, tuple[int, Any]] = {}  # handle -> index, and the worker at it
        room = [worker for _ in range(SHARDS_PER_WORKER) for worker in self._begun]
        num_done = 0
        self._patience.renew()
        while num_done < len(arguments):
            while room and (shard := next(waiting, None)) is not None:
                worker = room.pop(0)
                method = worker.shard.options(name=label, max_task_retries=MAX_SHARD_RETRIES)
                running[method.remote(step, shared, *shard[1])] = (shard[0], worker)
            finished, _ = ray.wait([*running, *self._starting], num_returns=1, timeout=ROUND_SECONDS, fetch_local=False)
            if not finished and not running:
                self._patience.spend()
            for handle in finished:
                if handle in self._starting:
                    room += self._start_work(handle)
                    continue
                index, worker = running.pop(handle)
                room.append(worker)
                num_done += 1
                self._on_progress(label, num_done, len(arguments))
                yield index, handle

    def _start_work(self, handle: Any) -> list[Any]:
        """The room of the worker that has answered; none, once there are enough. Raises what kept it from beginning."""
        worker = self._starting.pop(handle)
        ray.get(handle)
        if len(self._begun) == self.num_workers:
            return []
        self._begun.append(worker)
        return [worker] * SHARDS_PER_WORKER
