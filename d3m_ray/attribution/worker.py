"""The model that a worker process keeps between shards: rebuilt on first use, so that steps stay pure."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from d3m_ray.attribution.inputs import Checkpoint
from d3m_ray.model import build_classifier, default_device, load_weights

_kept: dict[str, tuple[PreTrainedModel, Any]] = {}  # at most one entry: a checkpoint's model and what hooks it


def loaded_model(
    checkpoint: Checkpoint, key: str, prepare: Callable[[PreTrainedModel], Any]
) -> tuple[PreTrainedModel, Any]:
    """The checkpoint's model and what `prepare` made of it, from the last call where both are the same."""
    name = f"{checkpoint.key}/{key}"
    if name not in _kept:
        _kept.clear()
        model = build_classifier(checkpoint.base, default_device())
        load_weights(model, checkpoint.weights)
        _kept[name] = (model, prepare(model))
    return _kept[name]
