"""A tiny BERT and a batch whose products are counted by hand, and what counts them in a call."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
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


def made_examples() -> TokenizedExamples:
    offsets = np.concatenate([[0], LENGTHS.cumsum()])
    ids = np.random.default_rng(0).integers(5, 50, offsets[-1]).astype(np.int32)
    return TokenizedExamples("train", ids, offsets, np.arange(B) % C, np.arange(B) % C, pad_id=0)


def operations(run: Callable[[], Any]) -> int:
    """Multiplications and additions of all matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
