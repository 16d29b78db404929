"""The workers of an engine: started once for each slot of the cluster, and kept over all stages of an experiment."""

import itertools
import math
import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from d3m_ray.cluster.dispatcher import MAX_CALLS, Dispatcher
from d3m_ray.cluster.worker import Worker
from d3m_ray.waiting import Patience, Say, say_plainly

MAX_WAIT_SECONDS = 1200.0  # seconds: an autoscaler may take minutes to start a machine
FLAGS = "--num-workers, --cpus-per-trial, --gpus-per-trial and --gpus-per-worker"
ROUND_SECONDS = 1.0  # between two looks at whether a worker has begun


class Fleet:
    """Worker processes that take so many CPUs and GPUs each, and what hands them their work. `end` ends them.

    A worker whose process died is started again, on another machine where its own is gone. One that finds no room on
    the cluster waits for it, and holds up nothing: an autoscaler starts machines for those that wait.
    """

    def __init__(
        self,
        cpus_per_worker: int = 1,
        gpus_per_worker: float = 0,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        say: Say = say_plainly,
    ) -> None:
        self.cpus_per_worker, self.gpus_per_worker = cpus_per_worker, gpus_per_worker
        self._max_wait_seconds, self._say = max_wait_seconds, say
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.dispatcher: Any = (
            ray.remote(Dispatcher).options(num_cpus=0, max_concurrency=MAX_CALLS, scheduling_strategy=here).remote()
        )
        self.workers: list[Any] = []
        self._shared: tuple[Any, Any] = (None, None)  # a value that was put, and its handle
        self._numbers = itertools.count()

    def grow(self, num_workers: int) -> None:
        """Have at least so many workers, as far as the cluster has, or gets, room for them."""
        actor = ray.remote(Worker).options(
            num_cpus=self.cpus_per_worker, num_gpus=self.gpus_per_worker, max_restarts=-1, max_task_retries=0
        )
        names = [f"worker {number}" for number in range(len(self.workers) + 1, num_workers + 1)]
        added = [actor.remote(name, self.cpus_per_worker) for name in names]
        self.workers += added
        if added:
            ray.get(self.dispatcher.add.remote(added))

    def next_number(self) -> int:
        """What the dispatcher knows a set of fits, or a pool, by: sets of fits are handed out in their order."""
        return next(self._numbers)

    def put_once(self, shared: Any) -> Any:
        """A handle to what the fits of all stages share: the same one for the same value, which workers read once."""
        if shared is not self._shared[0]:
            self._shared = (shared, ray.put(shared))
        return self._shared[1]

    def room(self, for_what: str) -> "Room":
        """Watch, while work waits, that it does not wait for ever for the cluster to have room for a worker."""
        fix = (
            "where there is room that takes up to a minute; "
            f"each takes {self.cpus_per_worker:g} CPU and {self.gpus_per_worker:g} GPU of one machine: {FLAGS} say how "
            "much"
        )
        patience = Patience(f"the cluster to start a worker for {for_what}", fix, self._max_wait_seconds, self._say)
        return Room(self.dispatcher, patience)

    def patience(self, what: str) -> Patience:
        """Tells of a wait that ends by itself."""
        return Patience(what, "", math.inf, self._say)

    def end(self) -> None:
        """End the workers, and what they are at."""
        for actor in (self.dispatcher, *self.workers):
            ray.kill(actor)


class Room:
    """Whether any worker has begun, looked at now and then."""

    def __init__(self, dispatcher: Any, patience: Patience) -> None:
        self._dispatcher, self._patience = dispatcher, patience
        self._asked = dispatcher.has_room.remote()
        self._next_look = 0.0
        self._is_there = False

    def look(self) -> bool:
        """Whether any has, at the last look. Call often.

        Raises RunError where no worker has begun for too long, RayError where none ever will.
        """
        if time.monotonic() < self._next_look:
            return self._is_there
        self._next_look = time.monotonic() + ROUND_SECONDS
        ready, _ = ray.wait([self._asked], timeout=0)
        self._is_there = bool(ready)
        if not ready:
            self._patience.spend()
            return False
        ray.get(self._asked)
        self._patience.renew()
        self._asked = self._dispatcher.has_room.remote()
        return True
