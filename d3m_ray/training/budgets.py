"""How much goes through a model at once: on a CPU what its cache holds, on a GPU what a share of its memory holds.

A budget follows from the device's memory and the model alone, never from what else is there: batches, and with them
the rounding of results, are the same each time.
"""

from itertools import chain

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

MEMORY_SHARE = 1 / 8  # of a GPU, which several workers and the weights share
KEPT_SHARE = 3  # bytes of all that a token keeps, in those of the inputs and outputs of linear layers
LEAST, MOST = 256, 2**16  # tokens: fewer leave a GPU idle, more make it no faster


def budget(memory_bytes: int, bytes_each: int, least: int, most: int) -> int:
    """How many things of this size a device has room for in its share, within bounds, as a power of two.

    A power of two, so that cards of nearly the same memory come to the same number.
    """
    room = max(1, int(memory_bytes * MEMORY_SHARE) // max(1, bytes_each))
    return min(most, max(least, 1 << (room.bit_length() - 1)))


def bytes_of_token(model: nn.Module, keeps_all: bool) -> int:
    """About what a token takes in float32: in all layers where a backward pass follows, else in the widest one."""
    widths = [sum(_sizes(layer)) for layer in model.modules() if isinstance(layer, nn.Linear | Conv1D)]
    counted = sum(widths) if keeps_all else max(widths, default=0)
    return 4 * KEPT_SHARE * counted


def tokens_at_once(model: nn.Module, on_cpu: int, keeps_all: bool = False) -> int:
    """Padded tokens of a batch: `on_cpu`, or what the GPU that the model is on has room for.

    `keeps_all` says that what its layers compute is kept for a backward pass.
    """
    memory = memory_of(device_of_model(model))
    return on_cpu if memory is None else budget(memory, bytes_of_token(model, keeps_all), LEAST, MOST)


def matrices_at_once(device: torch.device, on_cpu: int, num_entries: int) -> int:
    """Float32 matrices of so many entries that are made side by side, and once more squared or cast."""
    memory = memory_of(device)
    return on_cpu if memory is None else budget(memory, 2 * 4 * num_entries, 1, LEAST)


def memory_of(device: torch.device) -> int | None:
    """Bytes of a GPU, which is the sign of one; None of a CPU, where the cache decides and nobody waits for a value."""
    return int(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


def device_of_model(model: nn.Module) -> torch.device:
    """Of its first tensor."""
    return next(chain(model.parameters(), model.buffers())).device


def _sizes(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    return (layer.nx, layer.nf) if isinstance(layer, Conv1D) else (layer.in_features, layer.out_features)
