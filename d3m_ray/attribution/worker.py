"""The model that a worker process keeps between shards: rebuilt on first use, so that steps stay pure."""

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from d3m_ray.attribution.inputs import Checkpoint, ScoringPrecision
from d3m_ray.training.memory import give_memory_back, let_go_with
from d3m_ray.training.model import build_classifier, load_weights
from d3m_ray.training.precision import device_of

_kept: dict[str, tuple[PreTrainedModel, Any]] = {}  # at most one entry: a checkpoint's model and what hooks it
_num_bytes_let_go = 0  # of models that were kept before, and that the collector may not have seen yet

MAX_BYTES_LET_GO = 2**26  # of weights: a collection takes some tenths of a second, which a small model is not worth


def loaded_model(
    checkpoint: Checkpoint, key: str, precision: ScoringPrecision, prepare: Callable[[PreTrainedModel], Any]
) -> tuple[PreTrainedModel, Any]:
    """The checkpoint's model in evaluation mode and what `prepare` made of it, kept from the last call for the same.

    The model's weights are float64 where the precision is, else float32; `key` names what `prepare` does.
    """
    name = f"{checkpoint.key}/{precision}/{key}"
    if name not in _kept:
        _let_go()
        model = build_classifier(checkpoint.pretrained, device_of(checkpoint.device)).eval()
        load_weights(model, checkpoint.weights)
        if precision == "float64":
            model = model.double()
        _kept[name] = (model, prepare(model))
    return _kept[name]


def forget_models() -> None:
    """Keep no model: of one whose step was stopped half-way nobody knows what its hooks hold."""
    _kept.clear()


let_go_with(forget_models)


def _let_go() -> None:
    """Keep no model. It and what hooks it refer to each other, so a collection frees them, which comes now and then.

    A pass over a small model would leave 0.2 GB behind, and an LDS by EK-FAC takes a hundred passes.
    """
    global _num_bytes_let_go
    _num_bytes_let_go += sum(weights.nbytes for model, _ in _kept.values() for weights in model.parameters())
    _kept.clear()
    if _num_bytes_let_go > MAX_BYTES_LET_GO:
        give_memory_back()
        _num_bytes_let_go = 0
