"""Per-example gradients of the margin over every parameter, projected by hooks and never materialised.

Shapes: N examples of a batch, T tokens, I inputs and O outputs of a layer, d = k_out * k_in projected dimensions.

    linear      dW = sum_t g_t [x_t; 1]^T   ->  sum_t (L g_t) (R [x_t; 1])^T        L [k_out, O], R [k_in, I + 1]
    embedding   dW = sum_t e(id_t) g_t^T    ->  sum_t (L g_t) R[:, id_t]^T          R [k_in, vocabulary]
    LayerNorm   dw = sum_t g_t * x_hat_t, db = sum_t g_t  ->  P_w dw + P_b db       P [d, I]
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from d3m_ray.attribution.projection import SignProjection
from d3m_ray.batching import Batch
from d3m_ray.model import at_least_float32, autocast, logits_of, margins_of


class ProjectedGradients:
    """Turns padded batches into projected gradients of the margin. Freezes the model's weights and hooks its layers.

    Raises ValueError where a parameter belongs to a layer of another kind than linear, embedding and LayerNorm, or to
    two layers at once.
    """

    def __init__(self, model: PreTrainedModel, projection: SignProjection, precision: str = "float32") -> None:
        self.model = model.eval().requires_grad_(False)
        self.projection = projection
        self.precision = precision
        self._sum: torch.Tensor | None = None  # [N, d] of the batch under way
        self._num_examples = 0
        self._handles: list[RemovableHandle] = []
        hooks: dict[type[nn.Module], Callable[[str, Any], None]] = {
            nn.Linear: self._hook_linear,
            nn.Embedding: self._hook_embedding,
            nn.LayerNorm: self._hook_layer_norm,
        }
        for name, module in _layers_with_parameters(model, tuple(hooks)).items():
            hooks[next(kind for kind in hooks if isinstance(module, kind))](name, module)

    def remove_hooks(self) -> None:
        """Leave the model as an ordinary one, its weights still frozen."""
        for handle in self._handles:
            handle.remove()

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected gradients [N, d] and margins [N] of a batch, in the model's precision, float32 at least."""
        self._num_examples = len(batch.labels)
        self._sum = None
        with torch.enable_grad():
            with autocast(self.model.device, self.precision):
                logits = logits_of(self.model, batch)
            margins = margins_of(logits, batch.labels)
            margins.sum().backward()
        assert self._sum is not None, "no hooked layer took part in the forward pass"
        features, self._sum = self._sum * self.projection.scale, None
        return features, margins.detach()

    def _add(self, projected: torch.Tensor) -> None:
        flat = at_least_float32(projected).reshape(self._num_examples, self.projection.dim)
        self._sum = flat.clone() if self._sum is None else self._sum.add_(flat)

    def _add_outer(self, left: torch.Tensor, right: torch.Tensor) -> None:
        """Add sum_t left_t right_t^T, where left is [N, T, k_out] and right [N, T, k_in]."""
        self._add(torch.bmm(at_least_float32(left).transpose(1, 2), at_least_float32(right)))

    def _per_token(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """[N, T, .] from [N, T, .] or [N, .]."""
        if values.shape[0] != self._num_examples:
            raise ValueError(
                f"a layer keeps the examples of a batch apart in its first dimension; {name} received shape "
                f"{tuple(values.shape)} for {self._num_examples} examples"
            )
        return values.reshape(self._num_examples, -1, values.shape[-1])

    def _signs(self, name: str, num_rows: int, num_columns: int) -> torch.Tensor:
        """[num_columns, num_rows] signs in the dtype in which the layer's gradients arrive: +-1 is exact in any."""
        device = self.model.device
        low = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if low else self.model.dtype
        return self.projection.signs(name, num_rows, num_columns).T.contiguous().to(device, dtype)

    def _hook_linear(self, name: str, layer: nn.Linear) -> None:
        k_out, k_in = self.projection.factors
        with autocast(self.model.device, self.precision):
            left_signs = self._signs(f"{name}.out", k_out, layer.out_features)
            right_signs = self._signs(f"{name}.in", k_in, layer.in_features + 1)

        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            inputs = self._per_token(name, args[0]).to(right_signs.dtype)
            right = inputs @ right_signs[:-1]
            if layer.bias is not None:
                right = right + right_signs[-1]
            output.register_hook(
                lambda g: self._add_outer(self._per_token(name, g).to(left_signs.dtype) @ left_signs, right)
            )

        self._handles.append(layer.register_forward_hook(on_forward))

    def _hook_embedding(self, name: str, layer: nn.Embedding) -> None:
        k_out, k_in = self.projection.factors
        with autocast(self.model.device, self.precision):
            left_signs = self._signs(f"{name}.out", k_out, layer.embedding_dim)
        # In the model's own precision: embeddings stay out of autocast.
        right_signs = self._signs(f"{name}.in", k_in, layer.num_embeddings)

        def before_forward(_: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
            # Position and type ids arrive as one row for the whole batch: expand it, or the gradients of the
            # examples would be summed on their way back through the broadcast.
            return (args[0].expand(self._num_examples, -1),) if args[0].shape[0] == 1 else None

        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
            right = right_signs[args[0]]
            output.requires_grad_()  # the backward pass ends here: weights are frozen
            output.register_hook(
                lambda g: self._add_outer(self._per_token(name, g).to(left_signs.dtype) @ left_signs, right)
            )
            return output

        self._handles += [layer.register_forward_pre_hook(before_forward), layer.register_forward_hook(on_forward)]

    def _hook_layer_norm(self, name: str, layer: nn.LayerNorm) -> None:
        if len(layer.normalized_shape) != 1:
            raise ValueError(f"a LayerNorm normalises the last dimension, {name} normalises {layer.normalized_shape}")
        width = layer.normalized_shape[0]
        weight_signs = self._signs(f"{name}.weight", self.projection.dim, width)
        bias_signs = self._signs(f"{name}.bias", self.projection.dim, width)

        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            normalised = nn.functional.layer_norm(args[0].to(weight_signs.dtype), layer.normalized_shape, eps=layer.eps)

            def on_backward(gradient: torch.Tensor) -> None:
                g = self._per_token(name, gradient).to(weight_signs.dtype)
                if layer.weight is not None:
                    self._add((g * self._per_token(name, normalised)).sum(dim=1) @ weight_signs)
                if layer.bias is not None:
                    self._add(g.sum(dim=1) @ bias_signs)

            output.register_hook(on_backward)

        self._handles.append(layer.register_forward_hook(on_forward))


def _layers_with_parameters(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    """The layers that own parameters, by name. Raises ValueError on a kind that has no rule, or a shared parameter."""
    layers: dict[str, nn.Module] = {}
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        if not isinstance(module, kinds):
            known = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"TRAK projects the parameters of {known}; {name} is a {type(module).__name__}")
        for parameter in own.values():
            if owners.setdefault(id(parameter), name) != name:
                raise ValueError(f"each parameter belongs to one layer; {owners[id(parameter)]} and {name} share one")
        layers[name] = module
    return layers
