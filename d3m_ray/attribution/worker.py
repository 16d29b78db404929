"""The model that a worker process keeps between shards: rebuilt on first use, so that steps stay pure."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from d3m_ray.attribution.inputs import Checkpoint, ScoringPrecision
from d3m_ray.training.memory import give_memory_back
from d3m_ray.training.model import build_classifier, load_weights
from d3m_ray.training.precision import device_of

_kept: dict[str, tuple[PreTrainedModel, Any]] = {}  # at most one entry: a checkpoint's model and what hooks it


def loaded_model(
    checkpoint: Checkpoint, key: str, precision: ScoringPrecision, prepare: Callable[[PreTrainedModel], Any]
) -> tuple[PreTrainedModel, Any]:
    """The checkpoint's model in evaluation mode and what `prepare` made of it, kept from the last call for the same.

    The model's weights are float64 where the precision is, else float32; `key` names what `prepare` does.
    """
    name = f"{checkpoint.key}/{precision}/{key}"
    if name not in _kept:
        _kept.clear()
        give_memory_back()  # of the pass before: else 0.2 GB of a small model stay behind, hundreds of times in an LDS
        model = build_classifier(checkpoint.pretrained, device_of(checkpoint.device)).eval()
        load_weights(model, checkpoint.weights)
        if precision == "float64":
            model = model.double()
        _kept[name] = (model, prepare(model))
    return _kept[name]
