"""Budgets follow from memory by made-up numbers, and a CPU's stay what its cache holds."""

import dataclasses

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from d3m_ray.training import budgets
from d3m_ray.training.budgets import LEAST, MOST, budget, bytes_of_token, matrices_at_once, memory_of, tokens_at_once

GIB = 2**30


@pytest.mark.parametrize(
    ("memory", "each", "expected"),
    [
        (8 * 1024, 1, 1024),  # an eighth
        (8 * 2047, 1, 1024),  # the power of two below
        (8 * 100, 1, 8 * 16),  # no fewer than the least
        (8 * 10**6, 1, 4096),  # no more than the most
        (8, 10**9, 128),
        (8 * 1024, 0, 1024),  # a model without linear layers
    ],
)
def test_a_budget_is_a_power_of_two_of_the_share_of_memory_within_bounds(memory, each, expected):
    assert budget(memory, each, 128, 4096) == expected


def test_cards_of_nearly_the_same_memory_have_the_same_batches():
    assert budget(int(79.1 * GIB), 2_000_000, LEAST, MOST) == budget(int(79.6 * GIB), 2_000_000, LEAST, MOST) == 4096


def test_a_token_takes_what_all_layers_keep_or_the_widest_one():
    model = nn.Sequential(nn.Linear(10, 30), nn.LayerNorm(30), Conv1D(20, 30))
    assert bytes_of_token(model, keeps_all=True) == 4 * 3 * (40 + 50)
    assert bytes_of_token(model, keeps_all=False) == 4 * 3 * 50
    assert bytes_of_token(nn.LayerNorm(3), keeps_all=False) == 0


def test_on_a_cpu_budgets_are_those_of_its_cache():
    model = nn.Linear(10, 30)
    assert memory_of(torch.device("cpu")) is None
    assert tokens_at_once(model, 1234) == tokens_at_once(model, 1234, keeps_all=True) == 1234
    assert matrices_at_once(torch.device("cpu"), 7, 10**6) == 7


def test_on_a_gpu_budgets_are_of_all_of_its_memory(monkeypatch):
    """Not of what is free: batches would depend on what else runs there."""

    @dataclasses.dataclass
    class Properties:
        total_memory: int = 80 * GIB

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Properties())
    gpu = torch.device("cuda", 0)
    assert memory_of(gpu) == 80 * GIB
    monkeypatch.setattr(budgets, "device_of_model", lambda _: gpu)
    model = nn.Sequential(*(nn.Linear(3072, 3072, device="meta") for _ in range(24)))
    assert tokens_at_once(model, 1234) == MOST
    assert tokens_at_once(model, 1234, keeps_all=True) == 4096
    assert matrices_at_once(gpu, 7, 768 * 3073) == LEAST
    assert matrices_at_once(gpu, 7, 10**9) == 1
