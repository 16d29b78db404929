"""What a training step and a prediction compute, counted: a guard of speed that no busy machine disturbs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.cpu_encoder import TOKEN_MULTIPLE
from d3m_ray.training.fine_tuning import build_optimizer, predict
from d3m_ray.training.model import PretrainedModel, build_classifier, load_weights
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.steps import Step, step_logits

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


def forward_operations() -> int:
    """Multiplications and additions of one pass over the batch, of what leads to its logits and some padding."""
    tokens = min(-(-int(LENGTHS.sum()) // TOKEN_MULTIPLE) * TOKEN_MULTIPLE, B * T)
    full = tokens * (4 * E * E + 2 * E * F) + 2 * B * T * T * E
    last = tokens * 2 * E * E + B * (2 * E * E + 2 * E * F) + 2 * B * T * E
    return 2 * ((LAYERS - 1) * full + last + B * (E * E + E * C))


def operations(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


class Calls(TorchDispatchMode):
    """Counts what is dispatched to kernels, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += not func.is_view
        return func(*args, **(kwargs or {}))


def take_step(model: PreTrainedModel, optimizer: torch.optim.Optimizer, precision: str) -> None:
    logits, labels = step_logits(model, made_examples(), Step(0, np.arange(B), np.arange(B)), precision, True)
    nn.functional.cross_entropy(logits, labels).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_step_multiplies_what_leads_to_its_logits_and_no_more(precision):
    """Forward, and twice that backward: by the inputs and by the weights of each product."""
    model = made_model().train()
    optimizer = build_optimizer(model, TrainingConfig())
    assert operations(lambda: take_step(model, optimizer, precision)) == 3 * forward_operations()


def test_a_prediction_multiplies_what_leads_to_its_logits_and_no_more():
    model = made_model()
    assert operations(lambda: predict(model, made_examples(), "float32")) == forward_operations()


def test_a_step_calls_few_kernels():
    """Of short texts each call costs about as much as it computes: a twentieth more than were counted is too many."""
    model = made_model().train()
    optimizer = build_optimizer(model, TrainingConfig())
    take_step(model, optimizer, "bfloat16")  # the first one also allocates the optimiser's state
    with Calls() as calls:
        take_step(model, optimizer, "bfloat16")
    assert calls.number <= 459 * 1.05
