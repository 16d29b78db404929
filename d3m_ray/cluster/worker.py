"""The actor that trains fits and scores shards: one for each slot of the cluster, kept from the first to the last.

Ray loads the module of an actor's class wherever a handle to it arrives. The dispatcher holds handles to all workers,
and loads no torch: what a worker itself needs is loaded where it begins.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from d3m_ray.trials.engine import PlannedFit


class Worker:
    """Trains fits and runs the steps of attribution, one at a time; the name is what the dashboard shows."""

    def __init__(self, name: str, num_threads: int) -> None:
        from d3m_ray.cluster.work import Work

        self._name, self._life = name, uuid4().hex
        self._work = Work(num_threads)

    def __repr__(self) -> str:
        return self._name

    def begin(self) -> str:
        """The name of this process's life, answered once it has begun: one that finds no room never does."""
        return self._life

    def fit(self, call: "tuple[Any, PlannedFit]") -> tuple[dict[str, Any], None]:
        """What Tune is told of the fit, trained and recorded: `call` is a handle to the context, and the fit."""
        return self._work.fit(*call), None

    def shard(self, call: Sequence[Any]) -> tuple[None, Any]:
        """The step's result: `call` is the step, what its shards share, and the shard, or handles to these."""
        step, shared, *shard = call
        return None, self._work.shard(step, shared, shard)
