"""Second derivatives of a batch loss along a direction by one double backward, first ones of its losses by one forward.

Shapes: K examples of a batch. A direction is a list of tensors in the shapes of the parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel


class BatchGradient:
    """The gradient of a batch's mean loss with the graph that it came from; `losses` makes the [K] losses.

    Attention is computed by the one kernel of torch's that can be differentiated twice.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], losses: Callable[[], torch.Tensor]) -> None:
        self.parameters = parameters
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            of_examples = losses()
            self.example_weights = torch.ones_like(of_examples, requires_grad=True)
            loss = (self.example_weights * of_examples).sum() / self.example_weights.sum()
            self.gradients = torch.autograd.grad(loss, parameters, create_graph=True)

    def pull(self, direction: Sequence[torch.Tensor], is_last: bool = True) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The Hessian times a direction, and [K] the direction times the gradient's derivative by each weight at 1.

        The last call frees the graph.
        """
        linked = [(g, along) for g, along in zip(self.gradients, direction, strict=True) if g.requires_grad]
        outputs, along = zip(*linked, strict=True)
        inputs = [*self.parameters, self.example_weights]
        *curvatures, of_examples = torch.autograd.grad(
            outputs, inputs, along, retain_graph=not is_last, allow_unused=True, materialize_grads=True
        )
        return curvatures, of_examples


def mean_gradient(parameters: Sequence[nn.Parameter], losses: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """The gradient of the mean of the losses [K], attention computed as everywhere here."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        return torch.autograd.grad(losses().mean(), parameters)


def losses_along(
    model: PreTrainedModel,
    parameters: Sequence[nn.Parameter],
    direction: Sequence[torch.Tensor],
    losses: Callable[[PreTrainedModel], torch.Tensor],
) -> torch.Tensor:
    """[K] the derivatives along a direction of the losses that `losses` makes with a model: one forward pass."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    with torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        moved = {
            names[id(parameter)]: forward_ad.make_dual(parameter.detach(), along)
            for parameter, along in zip(parameters, direction, strict=True)
        }
        found = losses(cast(PreTrainedModel, _Moved(model, moved)))
        along = forward_ad.unpack_dual(found).tangent
        return torch.zeros_like(found) if along is None else along


class _Moved:
    """A model that computes with other parameters than its own."""

    def __init__(self, model: PreTrainedModel, parameters: Mapping[str, torch.Tensor]) -> None:
        self._model, self._parameters = model, parameters
        self.device = model.device

    def __call__(self, **options: Any) -> Any:
        return functional_call(self._model, dict(self._parameters), (), options)
