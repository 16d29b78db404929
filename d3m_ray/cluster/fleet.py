"""The workers of an engine: started once for each slot of the cluster, and kept over all stages of an experiment."""

import itertools
import math
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from d3m_ray.cluster.dispatcher import MAX_CALLS, Dispatcher
from d3m_ray.cluster.losses import Losses
from d3m_ray.cluster.machines import Terms, may_grow, num_slots
from d3m_ray.cluster.news import News
from d3m_ray.cluster.situation import is_gone, own_ray
from d3m_ray.cluster.worker import Worker
from d3m_ray.errors import EngineLostError, RunError, reason
from d3m_ray.trials.engine import OnLost
from d3m_ray.waiting import Patience, Say, say_plainly

MAX_WAIT_SECONDS = 1200.0  # seconds: an autoscaler may take minutes to start a machine
START_SECONDS = 60.0  # that a worker may take to start where there is room: its process imports torch
FLAGS = "--cpus-per-trial, --gpus-per-trial and --gpus-per-worker"
ROUND_SECONDS = 1.0  # between two looks at how the workers fare, and at which machines there are
MOST_ASKED_FOR = 32  # workers beyond what a cluster has room for, for which its autoscaler may start machines
GOES_ON = ": the same command goes on with what is not stored"
NODE_LABEL = "ray.io/node-id"  # by which Ray knows a machine


class RayGoneError(RunError):
    """The Ray that this process is attached to has ended. As soon as Ray knows, it ends the process without a word."""


class Fleet:
    """Worker processes that take so many CPUs and GPUs each, and what hands them their work. `end` ends them.

    A worker whose process died is started again, on another machine where its own is gone. One that finds no room on
    the cluster waits for it, and holds up nothing: an autoscaler starts machines for those that wait. A machine that
    joins gets workers while work waits, each of which first holds it to the terms.
    """

    def __init__(
        self,
        cpus_per_worker: int = 1,
        gpus_per_worker: float = 0,
        max_wait_seconds: float = MAX_WAIT_SECONDS,
        say: Say = say_plainly,
        terms: Terms | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        self.cpus_per_worker, self.gpus_per_worker = cpus_per_worker, gpus_per_worker
        self._max_wait_seconds, self.say, self._terms = max_wait_seconds, say, terms
        self._losses = Losses(on_lost or (lambda lost: say(str(lost))))
        self._own_ray = own_ray()
        # By a label, for it has to be on this machine: an affinity is not heeded by machines that do not know this one
        # yet. A call that does not reach it is made again, until it arrives or Ray knows that there is no dispatcher.
        dispatcher = ray.remote(Dispatcher).options(
            num_cpus=0,
            max_concurrency=MAX_CALLS,
            max_task_retries=-1,
            label_selector={NODE_LABEL: ray.get_runtime_context().get_node_id()},
        )
        self.dispatcher: Any = dispatcher.remote()
        self.workers: list[Any] = []
        self._num_lost = 0
        self._machines: Mapping[str, str] = {}  # the addresses of those with slots, by id
        self.given_up: Exception | None = None
        """What ends all that goes on, whoever finds it first: `look` raises it."""
        self.num_slots = 0
        """Workers for which the cluster's machines were large enough at the last look, were nothing else on them."""
        self._refusals: Mapping[str, str] = {}  # by the id of a machine
        self._shared: tuple[Any, Any] = (None, None)  # a value that was put, and its handle
        self._numbers = itertools.count()
        self._count_slots()

    def grow(self, num_wanted: int) -> int:
        """Have so many workers, as far as the cluster has, or may get, room for them; for how many it has.

        Raises RunError where no machine can take part.
        """
        num_workers = min(num_wanted, max(1, self._count_slots()))
        actor = ray.remote(Worker).options(
            num_cpus=self.cpus_per_worker,
            num_gpus=self.gpus_per_worker,
            max_restarts=-1,
            max_task_retries=0,
            label_selector={NODE_LABEL: f"!in({','.join(self._refusals)})"} if self._refusals else None,
        )
        first = len(self.workers)
        names = [f"worker {first + number + 1}" for number in range(num_workers - first + self._num_lost)]
        added = [actor.remote(name, self.cpus_per_worker, self._terms) for name in names]
        self.workers += added
        if added:
            self.answer(self.dispatcher.add.remote(first, added))
        return min(num_wanted, max(1, self.num_slots))

    def _count_slots(self) -> int:
        """Count the slots again; how many the cluster may come to have."""
        nodes = ray.nodes()  # dead ones too, which the autoscaler may still count
        usable = [node for node in nodes if node["Alive"] and node["NodeID"] not in self._refusals]
        sizes = {node["NodeID"]: num_slots([node], self.cpus_per_worker, self.gpus_per_worker) for node in usable}
        self._machines = {node["NodeID"]: node["NodeManagerAddress"] for node in usable if sizes[node["NodeID"]]}
        self.num_slots = sum(sizes.values())
        grows = may_grow([node["NodeID"] for node in nodes], where_unknown=self.num_slots == 0)
        if self._refusals and not usable and not grows:
            raise RunError(f"no machine of the cluster can take part: {'; '.join(self._refusals.values())}")
        return self.num_slots + grows * MOST_ASKED_FOR

    def look(self) -> News:
        """How the workers fare; where work waits, those are added for which the cluster has room by now.

        What has been lost since is told. Raises RunError where no worker can be added any more, and what was given up.
        """
        if self.given_up is not None:
            raise self.given_up
        self.check_own_ray()
        news: News = self.answer(self.dispatcher.news.remote())
        for node in news.refusals.keys() - self._refusals.keys():
            self.say(f"machine {news.refusals[node]}: the run goes on without it")
        self._num_lost, self._refusals = len(self.workers) - news.num_workers, news.refusals
        self.grow(len(news.living) + news.num_waiting)
        self._losses.look(news, self._machines, self.num_slots)
        return news

    def answer(self, handle: Any) -> Any:
        """What the dispatcher answers to a call.

        Raises EngineLostError where it is gone, RunError where it has no worker to wait for, and `check_own_ray`'s.
        """
        while True:
            try:
                return ray.get(handle, timeout=ROUND_SECONDS)
            except GetTimeoutError:
                self.check_own_ray()
            except RayError as error:
                self.check_own_ray()
                if not isinstance(error, RayTaskError):  # which the dispatcher would have raised
                    raise EngineLostError(reason(error)) from error
                raise RunError(f"no worker is handed work any more, {reason(error)}{GOES_ON}") from error

    def check_own_ray(self) -> None:
        """Raise RayGoneError where the raylet is gone that this process is attached to."""
        if self._own_ray is not None and is_gone(*self._own_ray):
            raise RayGoneError(f"the Ray of {self._own_ray[0]} has ended, to which this run was attached{GOES_ON}")

    def put(self, value: Any) -> Any:
        """A handle to a value. Raises RunError where the Ray of this machine is gone."""
        try:
            return ray.put(value)
        except RayError:
            self.check_own_ray()
            raise

    def next_number(self) -> int:
        """What the dispatcher knows a set of fits, or a pool, by: sets of fits are handed out in their order."""
        return next(self._numbers)

    def put_once(self, shared: Any) -> Any:
        """A handle to what the fits of all stages share: the same one for the same value, which workers read once."""
        if shared is not self._shared[0]:
            self._shared = (shared, self.put(shared))
        return self._shared[1]

    def room(self, for_what: str) -> "Room":
        """Watch, while work waits, that it does not wait for ever for the cluster to have room for a worker."""
        what = f"the cluster to start a worker for {for_what}"
        return Room(self, Patience(what, self.fix, self._max_wait_seconds, self.say, START_SECONDS))

    @property
    def fix(self) -> str:
        """What to do where there is no room for a worker."""
        return (
            f"each worker takes {self.cpus_per_worker:g} CPU and {self.gpus_per_worker:g} GPU of one machine: {FLAGS} "
            "say how much"
        )

    def patience(self, what: str, fix: str = "") -> Patience:
        """Tells of a wait, which ends by itself where nothing fixes it."""
        return Patience(what, fix, self._max_wait_seconds if fix else math.inf, self.say)

    def end(self) -> None:
        """End the workers, and what they are at."""
        self._losses.end()
        for actor in (self.dispatcher, *self.workers):
            ray.kill(actor)


class Room:
    """Whether any worker lives, looked at now and then."""

    def __init__(self, fleet: Fleet, patience: Patience) -> None:
        self._fleet, self._patience = fleet, patience
        self._next_look = 0.0
        self._is_there = False

    def look(self) -> bool:
        """Whether any does, at the last look. Call often.

        Raises RunError where no worker has lived for too long, or none ever will, and as `Fleet.look`.
        """
        if time.monotonic() < self._next_look:
            return self._is_there
        self._next_look = time.monotonic() + ROUND_SECONDS
        news = self._fleet.look()
        self._is_there = bool(news.living)
        if self._is_there:
            self._patience.renew()
        else:
            self._patience.spend(news.cause)
        return self._is_there
