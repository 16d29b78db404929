"""What per-example gradients of linear layers are made of: each layer's inputs and output gradients, caught by hooks.

Shapes: N examples of a batch, T tokens, C labels, O outputs of a layer, I its inputs with a trailing 1 where it has a
bias. The gradient of example n is [O, I], sum_t gradients[n, t] inputs[n, t]^T, weight and bias side by side.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.errors import InputError
from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of
from d3m_ray.training.precision import autocast

Caught = Mapping[str, tuple[torch.Tensor, torch.Tensor]]
"""By layer: inputs [N, T, I] and output gradients [N, T, O], in the dtype in which the layer multiplies."""


class LinearGradients:
    """Catches what linear layers see of a padded batch. Freezes the model's weights and hooks the layers named.

    A backward pass ends at the first of the layers: what comes before costs a forward pass only.
    """

    def __init__(self, model: PreTrainedModel, names: Sequence[str], precision: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.precision = precision
        self._logits = torch.empty(0)
        self._inputs: dict[str, torch.Tensor] = {}
        self._gradients: dict[str, torch.Tensor] = {}
        for name in names:
            model.get_submodule(name).register_forward_hook(self._hook(name))

    def forward(self, batch: Batch) -> torch.Tensor:
        """Logits [N, C].

        Raises InputError where a layer is passed twice.
        """
        self._inputs.clear()
        with torch.enable_grad(), autocast(self.model.device, self.precision):
            self._logits = logits_of(self.model, batch)
        return self._logits.detach()

    def backward(self, slopes: torch.Tensor) -> Caught:
        """What makes up the gradients of sum_n,c slopes_nc logit_nc [N, C] of the batch that went forward last.

        Raises ValueError where a layer does not keep the examples of a batch apart in its first dimension.
        """
        self._gradients.clear()
        self._logits.backward(slopes.to(self._logits))
        for name, inputs in self._inputs.items():
            if inputs.shape[0] != len(slopes):
                raise ValueError(
                    f"a layer keeps the examples of a batch apart in its first dimension; {name} received shape "
                    f"{tuple(inputs.shape)} for {len(slopes)} examples"
                )
        return {name: (self._layer_inputs(name), _per_token(self._gradients[name])) for name in self._gradients}

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor], torch.Tensor], None]:
        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            if name in self._inputs:
                raise InputError(
                    f"EK-FAC takes layers that an example passes once, and in this model {name} stands in several "
                    "places: narrow --ekfac-modules, or take another --model"
                )
            self._inputs[name] = args[0].detach().to(output.dtype)
            if not output.requires_grad:
                output.requires_grad_()  # the backward pass ends here
            output.register_hook(lambda gradient: self._gradients.update({name: gradient}))

        return on_forward

    def _layer_inputs(self, name: str) -> torch.Tensor:
        inputs = _per_token(self._inputs[name])
        if self.model.get_submodule(name).bias is None:
            return inputs
        return torch.cat([inputs, inputs.new_ones(*inputs.shape[:2], 1)], dim=2)


def _per_token(values: torch.Tensor) -> torch.Tensor:
    """[N, T, .] from [N, T, .] or [N, .]."""
    return values.reshape(len(values), -1, values.shape[-1])
