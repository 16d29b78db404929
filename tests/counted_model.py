"""A tiny BERT and a batch whose products are counted by hand, and what counts them in a call; what a GPU waits for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.model import PretrainedModel, build_classifier, load_weights

E, F, H, LAYERS, C = 32, 64, 4, 3, 2  # entries of a token, of a feed-forward layer; heads; labels
LENGTHS = np.array([3, 12, 9, 12, 5, 7, 11, 12])
B, T = len(LENGTHS), int(LENGTHS.max())


def made_model() -> PreTrainedModel:
    config = AutoConfig.for_model(
        "bert", vocab_size=50, hidden_size=E, num_hidden_layers=LAYERS, num_attention_heads=H, intermediate_size=F,
        max_position_embeddings=20, num_labels=C,
    )  # fmt: skip
    torch.manual_seed(0)
    stock = AutoModelForSequenceClassification.from_config(config)
    weights = {name: value.detach().numpy().copy() for name, value in stock.state_dict().items()}
    pretrained = PretrainedModel("made up", {**config.to_dict(), "model_type": "bert"}, weights, ("classifier",))
    model = build_classifier(pretrained)
    load_weights(model, weights)
    return model


class Waits(TorchDispatchMode):
    """Lists what a host would wait for a GPU at, and what goes there: values that are read, and copies from the host.

    On a CPU, values read by `item`, `bool`, `nonzero` or a mask of what is true are seen. On torch's meta device, whose
    tensors have no values, reading them raises, and copies from the CPU are seen.
    """

    READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2")

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []
        self.copies: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        of_mask = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in self.READS or of_mask:
            self.reads.append(name)
        if isinstance(result, torch.Tensor) and result.device.type == "meta":
            given = [each for each in args if isinstance(each, torch.Tensor) and each.device.type == "cpu"]
            self.copies += [tuple(each.shape) for each in given if each.ndim]
        return result


def made_examples() -> TokenizedExamples:
    offsets = np.concatenate([[0], LENGTHS.cumsum()])
    ids = np.random.default_rng(0).integers(5, 50, offsets[-1]).astype(np.int32)
    return TokenizedExamples("train", ids, offsets, np.arange(B) % C, np.arange(B) % C, pad_id=0)


def operations(run: Callable[[], Any]) -> int:
    """Multiplications and additions of all matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
