"""How a model uses its linear layers: which of them read one and the same input, in which precision each multiplies.

What is made of an input for one layer then serves all that read it, and weights are cast once and not for each batch.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of


@dataclass(frozen=True)
class LinearUse:
    """What a forward pass shows of linear layers, by their names. A layer that it does not reach is missing."""

    together: list[tuple[str, ...]]
    """The layers that received the very same tensor, as queries, keys and values do; a layer that is reached again
    stands where it was reached first."""
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)
    """In which each multiplied: of what it gave."""


def use_of_linears(model: nn.Module, names: Sequence[str], batch: Batch) -> LinearUse:
    """Found by a forward pass over the batch's first example, in the autocast context of the caller."""
    reached: list[tuple[torch.Tensor, list[str]]] = []  # holds the tensors, so that none takes the place of another
    dtypes: dict[str, torch.dtype] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def on_forward(_: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if name in dtypes:
                return
            dtypes[name] = output.dtype
            for inputs, together in reached:
                if inputs is args[0]:
                    together.append(name)
                    return
            reached.append((args[0], [name]))

        return on_forward

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            logits_of(model, Batch(batch.input_ids[:1], batch.attention_mask[:1], batch.labels[:1]))
    finally:
        for handle in handles:
            handle.remove()
    return LinearUse([tuple(together) for _, together in reached], dtypes)


def cast_weights(model: nn.Module, use: LinearUse) -> None:
    """Keep the layers' weights in the dtype in which they multiply, to which autocast would round them every batch.

    The same bits come out, but the weights can no longer be trained. A weight that another module owns too stays.
    """
    owners = Counter(id(parameter) for module in model.modules() for parameter in module.parameters(recurse=False))
    for name, dtype in use.dtypes.items():
        layer = model.get_submodule(name)
        if all(owners[id(parameter)] == 1 for parameter in layer.parameters(recurse=False)):
            layer.to(dtype)
