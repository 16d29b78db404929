"""What "auto" comes to, and what of a device's kind is asked of a process that may have another."""

import os
import subprocess
import sys

import pytest
import torch

from d3m_ray.errors import RunError
from d3m_ray.training import precision
from d3m_ray.training.precision import (
    at_least_float32,
    autocast,
    device_name,
    device_of,
    product_dtype,
    resolved_precision,
    supports_bfloat16,
)


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Made-up 1")


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
@pytest.mark.parametrize("named", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_taken(named, kind):
    assert resolved_precision(named, kind) == named


@pytest.mark.usefixtures("without_gpu")
def test_auto_is_what_the_device_multiplies_fast(monkeypatch):
    for fast, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(precision, "supports_bfloat16", lambda device, fast=fast: fast)
        assert resolved_precision("auto", "cpu") == expected
        assert autocast("cpu", "auto").fast_dtype == torch.bfloat16
        assert autocast("cpu", "auto")._enabled is fast
    assert resolved_precision("auto", "cuda") == "bfloat16", "a driver without the GPU takes it for a recent one"


@pytest.mark.usefixtures("with_gpu")
def test_auto_asks_the_gpu_that_is_here(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not supports_bfloat16("cuda")
    assert resolved_precision("auto", "cuda") == "float32"


@pytest.mark.usefixtures("without_gpu")
def test_a_process_without_the_device_that_is_planned_for_says_so():
    assert device_of("cpu") == torch.device("cpu")
    assert device_name().startswith("cpu, ")
    with pytest.raises(RunError, match=r"planned for cuda runs on no other device; this process has cpu: give it one"):
        device_of("cuda")


@pytest.mark.usefixtures("with_gpu")
def test_a_process_of_a_gpu_that_was_not_planned_for_says_so():
    assert device_of("cuda") == torch.device("cuda")
    assert device_name() == "cuda, Made-up 1"
    with pytest.raises(RunError, match=r"planned for cpu .* has cuda: .* or hide the GPU by CUDA_VISIBLE_DEVICES="):
        device_of("cpu")


def test_a_model_multiplies_in_what_is_asked_for(tiny_base):
    from d3m_ray.training.model import build_classifier

    model = build_classifier(tiny_base("bert"))
    assert product_dtype(model, "bfloat16") == torch.bfloat16
    assert product_dtype(model, "float32") == torch.float32
    assert product_dtype(model.double(), "float32") == torch.float64


def test_values_are_widened_and_never_narrowed():
    for given, expected in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        values = torch.tensor([1.5, -2.0], dtype=given)
        assert at_least_float32(values).dtype == expected
        assert at_least_float32(values).tolist() == [1.5, -2.0]


def test_products_of_cublas_are_exact_in_every_process():
    """Torch refuses them under deterministic algorithms where nothing says so."""
    script = "import os, d3m_ray.training.fine_tuning; print(os.environ['CUBLAS_WORKSPACE_CONFIG'])"
    without = {name: value for name, value in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
    assert subprocess.check_output([sys.executable, "-c", script], env=without, text=True).strip() == ":4096:8"
