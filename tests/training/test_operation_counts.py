"""What a training step and a prediction compute, counted: a guard of speed that no busy machine disturbs.

And what a step on a GPU would copy and wait for, on torch's meta device, which reads no value.
"""

import contextlib
from typing import Any

import numpy as np
import pytest
import torch
from counted_model import LAYERS, LENGTHS, B, C, E, F, T, Waits, made_examples, made_model, operations
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from d3m_ray.training import steps
from d3m_ray.training.cpu_encoder import TOKEN_MULTIPLE
from d3m_ray.training.device_masks import replace_masks
from d3m_ray.training.fine_tuning import build_optimizer, predict
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.steps import Step, step_logits


def forward_operations() -> int:
    """Multiplications and additions of one pass over the batch, of what leads to its logits and some padding."""
    tokens = min(-(-int(LENGTHS.sum()) // TOKEN_MULTIPLE) * TOKEN_MULTIPLE, B * T)
    full = tokens * (4 * E * E + 2 * E * F) + 2 * B * T * T * E
    last = tokens * 2 * E * E + B * (2 * E * E + 2 * E * F) + 2 * B * T * E
    return 2 * ((LAYERS - 1) * full + last + B * (E * E + E * C))


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


@pytest.fixture
def without_autocast(monkeypatch):
    """Torch has none for the meta device."""
    monkeypatch.setattr(steps, "autocast", lambda *_: contextlib.nullcontext())


WHOLE, LIKE_LENGTHS = np.arange(B), np.flatnonzero(LENGTHS == T)


@pytest.mark.parametrize(
    ("batch", "kept_rows", "copied"),
    [(WHOLE, WHOLE, [(B,)]), (WHOLE, WHOLE[:3], [(B,), (3,)]), (LIKE_LENGTHS, np.arange(3), [(3,)])],
    ids=["padded", "without some", "no padding"],
)
@pytest.mark.usefixtures("without_autocast")
def test_a_step_on_a_device_takes_positions_there_and_waits_for_nothing(batch, kept_rows, copied):
    """The tokens are there from the first step on. Each read of a value, as of a mask, would raise."""
    model = AutoModelForSequenceClassification.from_config(made_model().config)
    model.set_attn_implementation("sdpa")
    replace_masks(model)
    model.to("meta").train()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    examples = made_examples()

    def take() -> None:
        logits, labels = step_logits(model, examples, Step(0, batch, kept_rows), "float32", can_cut=False)
        nn.functional.cross_entropy(logits, labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    take()
    with Waits() as waits:
        take()
    assert waits.copies == copied
