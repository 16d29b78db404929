"""The actor that trains fits and scores shards: one for each slot of the cluster, kept from the first to the last.

Ray loads the module of an actor's class wherever a handle to it arrives. The dispatcher holds handles to all workers,
and loads no torch: what a worker itself needs is loaded where it begins.
"""

import pickle
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ray

from d3m_ray.cluster.news import Life

if TYPE_CHECKING:
    from d3m_ray.cluster.machines import Terms
    from d3m_ray.trials.engine import PlannedFit


def packed(fit: "PlannedFit") -> bytes:
    """A fit as it travels: by value, and small, for its removed positions ascend."""
    return zlib.compress(pickle.dumps(fit), level=1)


def unpacked(data: bytes) -> "PlannedFit":
    """The fit that was packed."""
    fit: PlannedFit = pickle.loads(zlib.decompress(data))
    return fit


class Worker:
    """Trains fits and runs the steps of attribution, one at a time; the name is what the dashboard shows.

    Each process that it has holds its machine to the terms before anything else.
    """

    def __init__(self, name: str, num_threads: int, terms: "Terms | None" = None) -> None:
        from d3m_ray.cluster.metrics import ProcessMetrics
        from d3m_ray.cluster.work import Work

        self._name, self._terms = name, terms
        self._life = Life(uuid4().hex, ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address())
        self._work = Work(num_threads)
        self._metrics = ProcessMetrics()

    def __repr__(self) -> str:
        return self._name

    def begin(self) -> Life:
        """Tell of this process, once it has begun: one that finds no room never does.

        Raises InputError where its machine does not meet the terms.
        """
        if self._terms is not None:
            self._terms.check()
            self._terms = None
        return self._life

    def fit(self, context: Sequence[Any], fit: bytes) -> dict[str, Any]:
        """What Tune is told of the fit, trained and recorded, given a handle to the context in a list."""
        self.begin()
        return self._work.fit(context[0], unpacked(fit))

    def shard(self, step: Callable[..., Any], shared: Any, *shard: Any) -> tuple[None, Any]:
        """Nothing, by which whoever called knows that it has ended, and the step's result, which may stay here.

        Ray has resolved `shared` and the shard where they were handles.
        """
        self.begin()
        return None, self._work.shard(step, shared, shard)
