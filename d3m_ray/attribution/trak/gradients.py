"""Per-example gradients of the margin over every parameter, projected by hooks and never materialised.

Shapes: N examples of a batch, T tokens, I inputs and O outputs of a layer, d = k_out * k_in projected dimensions.

    linear      dW = sum_t g_t [x_t; 1]^T   ->  sum_t (L g_t) (R [x_t; 1])^T        L [k_out, O], R [k_in, I + 1]
    embedding   dW = sum_t e(id_t) g_t^T    ->  sum_t (L g_t) R[:, id_t]^T          R [k_in, vocabulary]
    LayerNorm   dw = sum_t g_t * x_hat_t, db = sum_t g_t  ->  P_w dw + P_b db       P [d, I]

A layer whose weight is transposed (`Conv1D` of GPT-2) is a linear one, and RMSNorm a LayerNorm whose x_hat is x over
its root mean square: also where it multiplies by 1 + w (Gemma). A weight that several embeddings share has one block.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from d3m_ray.attribution.ekfac.layers import LINEAR_LAYERS, num_inputs_and_outputs
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of, margins_of
from d3m_ray.training.precision import at_least_float32, autocast


class ProjectedGradients:
    """Turns padded batches into projected gradients of the margin. Freezes the model's weights and hooks its layers.

    Raises ValueError where a parameter belongs to a layer of another kind than linear, embedding, LayerNorm and
    RMSNorm, or to two layers at once that are not both embeddings.
    """

    def __init__(self, model: PreTrainedModel, projection: SignProjection, precision: str = "float32") -> None:
        self.model = model.eval().requires_grad_(False)
        self.projection = projection
        self.precision = precision
        self._sum: torch.Tensor | None = None  # [N, d] of the batch under way
        self._num_examples = 0
        self._handles: list[RemovableHandle] = []
        self._tables: dict[int, Callable[[Lookup], torch.Tensor]] = {}  # by the id of an embedding's weight
        self._layers = _layers_with_parameters(model)
        hooks: Mapping[str, Callable[[str, Any], None]] = {
            "linear": self._hook_linear,
            "embedding": self._hook_embedding,
            "LayerNorm": self._hook_norm,
            "RMSNorm": self._hook_norm,
        }
        for name, (kind, module) in self._layers.items():
            hooks[kind](name, module)

    def remove_hooks(self) -> None:
        """Leave the model as an ordinary one, its weights still frozen."""
        for handle in self._handles:
            handle.remove()

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected gradients [N, d] and margins [N] of a batch, in the model's precision, float32 at least."""
        self._num_examples = len(batch.labels)
        self._sum = None
        with torch.enable_grad():
            with autocast(self.model.device, self.precision), _Lookups(self._tables):
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

    def _hook_linear(self, name: str, layer: Any) -> None:
        k_out, k_in = self.projection.factors
        with autocast(self.model.device, self.precision):
            num_inputs, num_outputs = num_inputs_and_outputs(layer)
            left_signs = self._signs(f"{name}.out", k_out, num_outputs)
            right_signs = self._signs(f"{name}.in", k_in, num_inputs + 1)

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

        def on_lookup(lookup: Lookup) -> torch.Tensor:
            ids = lookup.ids
            # Position and type ids arrive as one row for the whole batch: expand it, or the gradients of the
            # examples would be summed on their way back through the broadcast.
            if ids.ndim == 1 or (ids.ndim == 2 and ids.shape[0] == 1):
                ids = ids.expand(self._num_examples, ids.shape[-1])
            output = lookup.of(ids)
            right = right_signs[ids]
            output.requires_grad_()  # the backward pass ends here: weights are frozen
            output.register_hook(
                lambda g: self._add_outer(self._per_token(name, g).to(left_signs.dtype) @ left_signs, right)
            )
            return output

        self._tables[id(layer.weight)] = on_lookup

    def _hook_norm(self, name: str, layer: Any) -> None:
        width = layer.weight.numel() if layer.weight is not None else layer.bias.numel()
        weight_signs = self._signs(f"{name}.weight", self.projection.dim, width)
        bias_signs = self._signs(f"{name}.bias", self.projection.dim, width)

        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            normalised = _normalised(layer, args[0].to(weight_signs.dtype))

            def on_backward(gradient: torch.Tensor) -> None:
                g = self._per_token(name, gradient).to(weight_signs.dtype)
                if layer.weight is not None:
                    self._add((g * self._per_token(name, normalised)).sum(dim=1) @ weight_signs)
                if getattr(layer, "bias", None) is not None:
                    self._add(g.sum(dim=1) @ bias_signs)

            output.register_hook(on_backward)

        self._handles.append(layer.register_forward_hook(on_forward))

    def projected(self, gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[d] what the same projection makes of one example's gradients, given by parameter name: dense, and slow."""
        k_out, k_in = self.projection.factors
        total = torch.zeros(self.projection.dim, dtype=self.model.dtype)
        for name, (kind, layer) in self._layers.items():
            of_layer = {key: gradients[f"{name}.{key}"] for key, _ in layer.named_parameters(recurse=False)}
            if kind in ("LayerNorm", "RMSNorm"):
                for key, gradient in of_layer.items():
                    total += gradient @ self._signs(f"{name}.{key}", self.projection.dim, gradient.numel())
                continue
            weight = of_layer["weight"]
            outputs_first = weight if type(layer) is nn.Linear else weight.T  # embeddings, and Conv1D
            columns = [outputs_first] + ([of_layer["bias"][:, None]] if "bias" in of_layer else [])
            matrix = torch.cat(columns, dim=1)
            left = self._signs(f"{name}.out", k_out, len(matrix))
            num_columns = matrix.shape[1] + (kind == "linear" and "bias" not in of_layer)
            right = self._signs(f"{name}.in", k_in, num_columns)[: matrix.shape[1]]
            total += (left.T @ matrix @ right).flatten()
        return total * self.projection.scale


class Lookup:
    """A call of `torch.nn.functional.embedding` under way: its ids, and what it gives for these or others."""

    def __init__(self, ids: torch.Tensor, arguments: tuple, options: Mapping[str, Any]) -> None:
        self.ids = ids
        self._arguments, self._options = arguments, options

    def of(self, ids: torch.Tensor) -> torch.Tensor:
        return nn.functional.embedding(ids, *self._arguments, **self._options)


class _Lookups(TorchFunctionMode):
    """Hands each look-up in a table to a function: embeddings that shift their ids or scale what they find included."""

    def __init__(self, tables: Mapping[int, Callable[[Lookup], torch.Tensor]]) -> None:
        super().__init__()
        self.tables = tables

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is nn.functional.embedding and id(args[1]) in self.tables:
            return self.tables[id(args[1])](Lookup(args[0], args[1:], kwargs))
        return function(*args, **kwargs)


def _normalised(layer: Any, values: torch.Tensor) -> torch.Tensor:
    """x_hat: what the layer multiplies its weight by."""
    if isinstance(layer, nn.LayerNorm):
        return nn.functional.layer_norm(values, layer.normalized_shape, eps=layer.eps)
    eps = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    return nn.functional.rms_norm(values, values.shape[-1:], eps=eps)


def _kind(module: nn.Module) -> str | None:
    """Which of the rules above holds for a layer; None where none is known to."""
    if type(module) in LINEAR_LAYERS:
        return "linear"
    if isinstance(module, nn.Embedding):
        return "embedding"
    own = {name: parameter.ndim for name, parameter in module.named_parameters(recurse=False)}
    if type(module) is nn.LayerNorm:
        return "LayerNorm" if len(module.normalized_shape) == 1 else None
    is_rms = type(module).__name__.endswith(("RMSNorm", "T5LayerNorm"))  # each architecture of transformers has its own
    return "RMSNorm" if is_rms and own == {"weight": 1} else None


def _layers_with_parameters(model: nn.Module) -> dict[str, tuple[str, nn.Module]]:
    """The kinds and layers that own parameters, by name; of embeddings that share a weight, the first.

    Raises ValueError on a kind without a rule, or a parameter that layers of other kinds share.
    """
    layers: dict[str, tuple[str, nn.Module]] = {}
    owners: dict[int, tuple[str, str]] = {}
    for name, module in model.named_modules():
        own = dict(module.named_parameters(recurse=False))
        if not own:
            continue
        kind = _kind(module)
        if kind is None:
            raise ValueError(
                "TRAK projects the parameters of Linear, Conv1D (GPT-2's), Embedding, LayerNorm over one dimension and "
                f"RMSNorm; {name} is a {type(module).__name__}"
            )
        shared = {owners[id(parameter)] for parameter in own.values() if id(parameter) in owners}
        if any((kind, owner) != ("embedding", "embedding") for owner, _ in shared):
            first = next(iter(shared))[1]
            raise ValueError(f"each parameter belongs to one layer; {first} and {name} share one")
        if not shared:
            layers[name] = (kind, module)
            owners.update((id(parameter), (kind, name)) for parameter in own.values())
    return layers
