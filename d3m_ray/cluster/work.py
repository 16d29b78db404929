"""What a worker process does, fits and shards, and what it keeps between them."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

import ray
import torch

import d3m_ray.training.recipes  # noqa: F401 - loads transformers, before what is loaded is kept
from d3m_ray.cluster.dispatcher import ENDED, ERROR, TRACE
from d3m_ray.errors import reason
from d3m_ray.store.files import StoreError
from d3m_ray.training.memory import give_memory_back, keep_what_is_loaded, let_go_of_models
from d3m_ray.trials.engine import PlannedFit, train_and_record

# What another try may not meet: a store or network out of reach, memory that others held. A CUDA error besides leaves
# its process of no use, which must end. All else, a loss that diverges or a wrong shape, would come again.
PASSING = (OSError, StoreError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)


class Work:
    """Fits and shards in one process, on so many threads, and what it keeps between them."""

    def __init__(self, num_threads: int) -> None:
        self._kind: Literal["fit", "shard"] | None = None  # what was done last
        self._shared: tuple[Any, Any] = (None, None)  # a handle and its value: the last that calls shared
        torch.set_num_threads(num_threads)
        keep_what_is_loaded()

    def fit(self, context: Any, planned: PlannedFit) -> dict[str, Any]:
        """Train a fit and record its trials; what Tune is told of it. Raises what another try may not meet."""
        self._turn_to("fit")
        told: dict[str, Any] = {ENDED: 1}  # Tune says something aloud of an empty result
        try:
            val_wga = train_and_record(self._value(context), planned)
            told |= {} if val_wga is None else {"val_wga": val_wga}
        except PASSING:
            raise
        except Exception as error:
            told |= {ERROR: reason(error), TRACE: traceback.format_exc()}
        give_memory_back()
        return told

    def shard(self, step: Callable[..., Any], shared: Any, shard: Sequence[Any]) -> Any:
        """The step's result; handles among its arguments are read."""
        self._turn_to("shard")
        arguments = (ray.get(argument) if isinstance(argument, ray.ObjectRef) else argument for argument in shard)
        return step(self._value(shared), *arguments)

    def _turn_to(self, kind: Literal["fit", "shard"]) -> None:
        """Let go of the model that shards keep where fits begin, and that fits keep where shards do."""
        if self._kind not in (None, kind):
            self._shared = (None, None)
            let_go_of_models()
        self._kind = kind

    def _value(self, shared: Any) -> Any:
        if not isinstance(shared, ray.ObjectRef):
            return shared
        if shared != self._shared[0]:
            self._shared = (None, None)  # the last one is freed before the next is read
            self._shared = (shared, ray.get(shared))
        return self._shared[1]
