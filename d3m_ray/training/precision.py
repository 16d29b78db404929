"""What a process computes on, and in which precision it multiplies matrices."""

import os
from typing import TYPE_CHECKING

import torch

from d3m_ray.errors import RunError
from d3m_ray.records import DeviceKind
from d3m_ray.training.settings import Precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Fits on a GPU ask torch for exact kernels, and torch then refuses the products of cuBLAS unless their workspace has a
# fixed size, which is read when a process first multiplies.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def default_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_of(kind: DeviceKind) -> torch.device:
    """The device of this kind. Raises RunError where this process was given one of another, whose bits are others."""
    device = default_device()
    if device.type != kind:
        fix = (
            "give it one (--gpus-per-trial, --gpus-per-worker)"
            if kind == "cuda"
            else "take --gpus-per-trial 1 and --gpus-per-worker 1, or hide the GPU by CUDA_VISIBLE_DEVICES="
        )
        raise RunError(f"what is planned for {kind} runs on no other device; this process has {device.type}: {fix}")
    return device


def device_name() -> str:
    """The kind of the default device, and what the maker calls it where that is known: `cuda, NVIDIA H100 PCIe`."""
    if default_device().type == "cuda":
        return f"cuda, {torch.cuda.get_device_name()}"
    return f"cpu, {torch.backends.cpu.get_cpu_capability()}"


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """The same values, bfloat16 widened to float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def supports_bfloat16(device: torch.device | str) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones."""
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolved_precision(precision: str, kind: DeviceKind) -> Precision:
    """What "auto" comes to on a device of this kind: bfloat16 where it multiplies it fast, else float32.

    A driver without the GPU that its trials have takes it for one of the last years, which does.
    """
    if precision != "auto":
        return "float32" if precision == "float32" else "bfloat16"
    is_elsewhere = kind == "cuda" and not torch.cuda.is_available()
    return "bfloat16" if is_elsewhere or supports_bfloat16(kind) else "float32"


def autocast(device: torch.device | str, precision: str) -> torch.autocast:
    """The context of a forward pass in `precision`: "auto", "float32" or "bfloat16"."""
    enabled = supports_bfloat16(device) if precision == "auto" else precision == "bfloat16"
    return torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=enabled)


def product_dtype(model: "PreTrainedModel", precision: str) -> torch.dtype:
    """The dtype in which the model multiplies matrices in that context: bfloat16, or its weights' own."""
    with autocast(model.device, precision):
        return torch.bfloat16 if torch.is_autocast_enabled(model.device.type) else model.dtype
