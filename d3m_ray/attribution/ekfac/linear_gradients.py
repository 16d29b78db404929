"""What per-example gradients of linear layers are made of: each layer's inputs and output gradients, caught by hooks.

Shapes: N examples of a batch, T tokens, C labels, O outputs of a layer, I its inputs with a trailing 1 where it has a
bias. The gradient of example n is [O, I], sum_t gradients[n, t] inputs[n, t]^T, weight and bias side by side.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.attribution.linear_use import cast_weights, use_of_linears
from d3m_ray.errors import InputError
from d3m_ray.training.batching import Batch
from d3m_ray.training.budgets import memory_of
from d3m_ray.training.model import logits_of
from d3m_ray.training.precision import autocast

Caught = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By layer: inputs [N, T, I] and output gradients [N, T, O], in the dtype in which the layer multiplies.

Layers that read the same input, as queries, keys and values do, have it as one tensor."""

PROBED = 32  # outputs of a layer that tell in most cases that a token has a gradient


class LinearGradients:
    """Catches what linear layers see of a padded batch. Freezes the model's weights and hooks the layers named.

    A backward pass ends at the first of the layers: what comes before costs a forward pass only.
    """

    def __init__(self, model: PreTrainedModel, names: Sequence[str], precision: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.precision = precision
        self._names = names
        self._is_cast = False
        self._logits = torch.empty(0)
        self._inputs: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        self._read: tuple[torch.Tensor, torch.Tensor] | None = (
            None  # what a layer received last, and what is kept of it
        )
        for name in names:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits [N, C].

        Raises InputError where a layer is passed twice.
        """
        if not self._is_cast:
            with autocast(self.model.device, self.precision):
                cast_weights(self.model, use_of_linears(self.model, self._names, batch))
            self._is_cast = True
        self._inputs.clear()
        with torch.enable_grad(), autocast(self.model.device, self.precision):
            self._logits = logits_of(self.model, batch)
        self._read = None
        return self._logits.detach()

    def backward(self, slopes: torch.Tensor) -> Caught:
        """What makes up the gradients of sum_n,c slopes_nc logit_nc [N, C] of the batch that went forward last.

        Raises ValueError where a layer does not keep the examples of a batch apart in its first dimension.
        """
        self._gradients.clear()
        self._logits.backward(slopes.to(self._logits))
        self._logits = torch.empty(0)  # its graph has hooks that hold this object, a circle which no collector sees
        for name, inputs in self._inputs.items():
            if inputs.shape[0] != len(slopes):
                raise ValueError(
                    f"a layer keeps the examples of a batch apart in its first dimension; {name} received shape "
                    f"{tuple(inputs.shape)} for {len(slopes)} examples"
                )
        made: dict[tuple[int, bool], torch.Tensor] = {}
        return {name: (self._layer_inputs(name, made), _per_token(self._gradients[name])) for name in self._gradients}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor], torch.Tensor], None]:
        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            if name in self._inputs:
                raise InputError(
                    f"EK-FAC takes layers that an example passes once, and in this model {name} stands in several "
                    "places: narrow --ekfac-modules, or take another --model"
                )
            if self._read is None or self._read[0] is not args[0] or self._read[1].dtype != output.dtype:
                self._read = args[0], args[0].detach().to(output.dtype)
            self._inputs[name] = self._read[1]
            if not output.requires_grad:
                output.requires_grad_()  # the backward pass ends here
            output.register_hook(lambda gradient: self._gradients.update({name: gradient}))

        return on_forward

    def _layer_inputs(self, name: str, made: dict[tuple[int, bool], torch.Tensor]) -> torch.Tensor:
        has_bias = self.model.get_submodule(name).bias is not None
        key = id(self._inputs[name]), has_bias
        if key not in made:
            inputs = _per_token(self._inputs[name])
            ones = [inputs.new_ones(*inputs.shape[:2], 1)] if has_bias else []
            made[key] = torch.cat([inputs, *ones], dim=2)
        return made[key]


def where_gradients_are(inputs: torch.Tensor, gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same layer's [N, T', I] and [N, T', O] without tokens of no gradient, where that leaves half of them or less.

    A last layer passes on one token of each example where the head reads one. What is left out adds nothing. On a GPU
    none is left out: to count them it would be waited for, twice for each layer and batch.
    """
    if memory_of(gradients.device) is not None:
        return inputs, gradients
    if num_with_gradients(gradients[..., :PROBED]) * 2 > gradients.shape[1]:
        return inputs, gradients
    num_tokens = max(1, num_with_gradients(gradients))
    if num_tokens * 2 > gradients.shape[1]:
        return inputs, gradients
    places = (
        gradients.ne(0).any(dim=2).to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :num_tokens, None]
    )
    return (
        inputs.gather(1, places.expand(-1, -1, inputs.shape[2])),
        gradients.gather(1, places.expand(-1, -1, gradients.shape[2])),
    )


def num_with_gradients(gradients: torch.Tensor) -> int:
    """Of the example that has most: its tokens [N, T, .] with a gradient other than zero."""
    return int(gradients.ne(0).any(dim=2).sum(dim=1).max())


def _per_token(values: torch.Tensor) -> torch.Tensor:
    """[N, T, .] from [N, T, .] or [N, .]."""
    return values.reshape(len(values), -1, values.shape[-1])
