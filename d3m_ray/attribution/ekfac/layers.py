"""Which linear layers of a model EK-FAC covers, by their dotted names, and which share of the parameters they hold."""

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from d3m_ray.errors import InputError

# The exact types: a subclass, as inside nn.MultiheadAttention, may be computed without its own forward.
LINEAR_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear, Conv1D)
"""Conv1D is transformers' linear layer with a transposed weight [I, O] (GPT-2)."""
LIBRARY_LAYERS: tuple[type[nn.Module], ...] = (nn.Linear,)  # what kronfluence can track: not GPT-2's Conv1D


def num_inputs_and_outputs(layer: Any) -> tuple[int, int]:
    """(I, O) of one of `LINEAR_LAYERS`."""
    return (layer.nx, layer.nf) if isinstance(layer, Conv1D) else (layer.in_features, layer.out_features)


def tracked_linears(
    model: nn.Module, modules: Sequence[str], kinds: Sequence[type[nn.Module]] = LINEAR_LAYERS
) -> list[str]:
    """The names of the model's linear layers, in the model's order: those at or below one of `modules`, else all.

    Raises InputError where one of `modules` is no linear layer and holds none.
    """
    linears = [name for name, module in model.named_modules() if type(module) in kinds]
    for module in modules:
        if not any(_is_within(name, module) for name in linears):
            raise InputError(
                "--ekfac-modules takes linear layers, or modules that hold some, by their dotted names, "
                f"received {module!r}; this model's linear layers are {', '.join(_patterns(linears))}"
            )
    return [name for name in linears if not modules or any(_is_within(name, module) for module in modules)]


def share_of_parameters(model: nn.Module, names: Sequence[str]) -> float:
    """The share of the model's parameters that these layers hold; a parameter that several layers share counts once."""
    held = {id(p): p.numel() for name in names for p in model.get_submodule(name).parameters(recurse=False)}
    return sum(held.values()) / sum(parameter.numel() for parameter in model.parameters())


def _is_within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _patterns(names: Sequence[str]) -> list[str]:
    """The names with layer numbers drawn together: `encoder.layer.0-11.output.dense`."""
    numbers: dict[str, list[str]] = {}
    for name in names:
        found = re.search(r"(?<=\.)\d+(?=\.)", name)
        pattern = name if found is None else f"{name[: found.start()]}{{}}{name[found.end() :]}"
        numbers.setdefault(pattern, []).append("" if found is None else found.group())
    ranges = {pattern: found[0] if len(found) == 1 else f"{found[0]}-{found[-1]}" for pattern, found in numbers.items()}
    return [pattern.format(numbering) for pattern, numbering in ranges.items()]
