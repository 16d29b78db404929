"""What a worker process does, fits and shards, and what it keeps between them."""

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, Literal

import ray
import torch

import d3m_ray.training.recipes  # noqa: F401 - loads transformers, before what is loaded is kept
from d3m_ray.cluster.dispatcher import ENDED, ERROR, SECONDS, TRACE
from d3m_ray.errors import reason
from d3m_ray.store.errors import StoreError
from d3m_ray.training.memory import give_memory_back, keep_what_is_loaded, let_go_of_models
from d3m_ray.trials.engine import PlannedFit, train_and_record
from d3m_ray.trials.trial import TrialContext

# What another try may not meet: a store or network out of reach, memory that others held. A CUDA error besides leaves
# its process of no use, which must end. All else, a loss that diverges or a wrong shape, would come again.
PASSING = (OSError, StoreError, MemoryError, torch.OutOfMemoryError, torch.AcceleratorError)


class Work:
    """Fits and shards in one process, on so many threads, and what it keeps between them."""

    def __init__(self, num_threads: int) -> None:
        self._kind: Literal["fit", "shard"] | None = None  # what was done last
        self._context: tuple[Any, Any] = (None, None)  # a handle and its value: the last that fits shared
        torch.set_num_threads(num_threads)
        keep_what_is_loaded()

    def fit(self, context: Any, planned: PlannedFit) -> dict[str, Any]:
        """Train a fit and record its trials; what Tune is told of it. Raises what another try may not meet."""
        self._turn_to("fit")
        told: dict[str, Any] = {ENDED: 1}  # Tune says something aloud of an empty result
        start = time.perf_counter()
        try:
            val_wga = train_and_record(self._context_of(context), planned)
            told |= {} if val_wga is None else {"val_wga": val_wga}
        except PASSING:
            raise
        except Exception as error:
            told |= {ERROR: reason(error), TRACE: traceback.format_exc()}
        told[SECONDS] = time.perf_counter() - start
        give_memory_back()
        return told

    def shard(self, step: Callable[..., Any], shared: Any, shard: Sequence[Any]) -> Any:
        """The step's result."""
        self._turn_to("shard")
        return step(shared, *shard)

    def _turn_to(self, kind: Literal["fit", "shard"]) -> None:
        """Let go of the model that shards keep where fits begin, and that fits keep where shards do."""
        if self._kind not in (None, kind):
            self._context = (None, None)
            let_go_of_models()
        self._kind = kind

    def _context_of(self, handle: Any) -> TrialContext:
        if handle != self._context[0]:
            self._context = (None, None)  # the last one is freed before the next is read
            self._context = (handle, ray.get(handle))
        context: TrialContext = self._context[1]
        return context
