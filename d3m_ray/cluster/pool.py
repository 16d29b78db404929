"""The worker pool of Ray actors: one per GPU or per core, each running pure steps over shards."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray
import torch

from d3m_ray.pool import OnProgress, ignore_progress
from d3m_ray.waiting import Patience, Say, say_plainly

MAX_RESTARTS = 2  # of an actor whose process or machine died; its shard is run again
MAX_WAIT_SECONDS = 1200.0  # seconds: an autoscaler may take minutes to start a machine
ROUND_SECONDS = 1.0  # between two looks at whether a worker has begun
SHARDS_PER_WORKER = 2  # under way at once: the next one waits at the actor while the driver handles a result


class StepWorker:
    """Runs steps in a process of its own; the name is what the dashboard shows."""

    def __init__(self, name: str, num_threads: int) -> None:
        self._name = name
        torch.set_num_threads(num_threads)

    def __repr__(self) -> str:
        return self._name

    def begin(self) -> None:
        """Answered by a worker that has begun: one that finds no room on the cluster never does."""

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
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        say: Say = say_plainly,
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
        self._begun: list[Any] = []
        self._starting = {worker.begin.remote(): worker for worker in self._actors}  # handle -> worker
        self._patience = Patience(
            f"the cluster to start one of {num_workers} attribution workers",
            "where there is room that takes up to a minute; "
            f"each takes {cpus_per_worker:g} CPU and {gpus_per_worker:g} GPU of one machine: --num-workers, "
            "--cpus-per-trial and --gpus-per-worker say how much",
            max_wait_seconds,
            say,
        )

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
        """Index and handle of each shard's result, as they finish. The actor with room takes the next shard.

        A shard goes to an actor that has begun only: one that finds no room on the cluster would keep it for ever.
        """
        arguments = list(zip(*shards, strict=True))
        waiting = iter(enumerate(arguments))
        running: dict[Any, tuple[int, Any]] = {}  # handle -> index, and the actor at work on it
        room = [actor for _ in range(SHARDS_PER_WORKER) for actor in self._begun]
        num_done = 0
        self._patience.renew()
        while num_done < len(arguments):
            while room and (shard := next(waiting, None)) is not None:
                actor = room.pop(0)
                handle = actor.run.options(name=label).remote(step, shared, *shard[1])
                running[handle] = (shard[0], actor)
            handles = [*running, *self._starting]
            finished, _ = ray.wait(handles, num_returns=1, timeout=ROUND_SECONDS, fetch_local=False)
            if not finished and not running:
                self._patience.spend()
            for handle in finished:
                if handle in self._starting:
                    room += [self._start_work(handle)] * SHARDS_PER_WORKER
                    continue
                index, actor = running.pop(handle)
                room.append(actor)
                num_done += 1
                self._on_progress(label, num_done, len(arguments))
                yield index, handle

    def _start_work(self, handle: Any) -> Any:
        """The actor that has answered. Raises what kept it from beginning."""
        ray.get(handle)
        actor = self._starting.pop(handle)
        self._begun.append(actor)
        return actor
