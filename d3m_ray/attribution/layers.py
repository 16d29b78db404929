"""Which linear layers of a model EK-FAC covers, by their dotted names."""

import re
from collections.abc import Sequence

from torch import nn

from d3m_ray.errors import InputError


def tracked_linears(model: nn.Module, modules: Sequence[str]) -> list[str]:
    """The names of the model's linear layers, in the model's order: those at or below one of `modules`, else all.

    Raises InputError where one of `modules` is no linear layer and holds none.
    """
    # The exact type: a subclass, as inside nn.MultiheadAttention, may be computed without its own forward.
    linears = [name for name, module in model.named_modules() if type(module) is nn.Linear]
    for module in modules:
        if not any(_is_within(name, module) for name in linears):
            raise InputError(
                "--ekfac-modules takes linear layers, or modules that hold some, by their dotted names, "
                f"received {module!r}; this model's linear layers are {', '.join(_patterns(linears))}"
            )
    return [name for name in linears if not modules or any(_is_within(name, module) for module in modules)]


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
