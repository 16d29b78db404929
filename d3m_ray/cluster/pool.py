"""The worker pool of Ray actors: one per GPU or per core, each running pure steps over shards."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
import torch

from d3m_ray.pool import OnProgress, ignore_progress

MAX_RESTARTS = 2  # of an actor whose process or machine died; its shard is run again
SHARDS_PER_WORKER = 2  # under way at once: the next one waits at the actor while the driver handles a result


class StepWorker:
    """Runs steps in a process of its own; the name is what the dashboard shows."""

    def __init__(self, name: str, num_threads: int) -> None:
        self._name = name
        torch.set_num_threads(num_threads)

    def __repr__(self) -> str:
        return self._name

    def run(self, step: Callable[..., Any], shared: Any, *shard: Any) -> Any:
        """The step's result. Ray has resolved `shared` and the shard where they were handles."""
        return step(shared, *shard)


class RayPool:
    """A `WorkerPool` of actors; use it in a `with` block, which ends them."""

    def __init__(
        self,
        num_workers: int,
        cpus_per_worker: int = 1,
        gpus_per_worker: float = 0,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self.num_workers = num_workers
        self._on_progress = on_progress
        # max_task_retries runs the shard of a dead process again; an error of the step itself is never retried.
        actor = ray.remote(StepWorker).options(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )
        names = [f"attribution worker {number}" for number in range(1, num_workers + 1)]
        self._actors: list[Any] = [actor.remote(name, cpus_per_worker) for name in names]

    def __enter__(self) -> "RayPool":
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

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
        """Index and handle of each shard's result, as they finish. The actor with room takes the next shard."""
        arguments = list(zip(*shards, strict=True))
        waiting = iter(enumerate(arguments))
        running: dict[Any, tuple[int, Any]] = {}  # handle -> index, and the actor at work on it
        room = [actor for _ in range(SHARDS_PER_WORKER) for actor in self._actors]
        num_done = 0
        while True:
            while room and (shard := next(waiting, None)) is not None:
                actor = room.pop(0)
                handle = actor.run.options(name=label).remote(step, shared, *shard[1])
                running[handle] = (shard[0], actor)
            if not running:
                return
            finished, _ = ray.wait(list(running), num_returns=1, fetch_local=False)
            index, actor = running.pop(finished[0])
            room.append(actor)
            num_done += 1
            self._on_progress(label, num_done, len(arguments))
            yield index, finished[0]
