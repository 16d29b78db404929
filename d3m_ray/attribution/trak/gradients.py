"""Per-example gradients of the margin over every parameter, projected by hooks and never materialised.

Shapes: N examples of a batch, T tokens, I inputs and O outputs of a layer, d = k_out * k_in projected dimensions.

    linear      dW = sum_t g_t [x_t; 1]^T   ->  sum_t (L g_t) (R [x_t; 1])^T        L [k_out, O], R [k_in, I + 1]
    embedding   dW = sum_t e(id_t) g_t^T    ->  sum_t (L g_t) R[:, id_t]^T          R [k_in, vocabulary]
    LayerNorm   dw = sum_t g_t * x_hat_t, db = sum_t g_t  ->  P_w dw + P_b db       P [d, I], one entry a column

The pairs L g_t and R x_t of all layers are joined along the tokens, so that one product an example sums over both.

A layer whose weight is transposed (`Conv1D` of GPT-2) is a linear one, and RMSNorm a LayerNorm whose x_hat is x over
its root mean square: also where it multiplies by 1 + w (Gemma). A weight that several embeddings share has one block.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.attribution.ekfac.layers import LINEAR_LAYERS, num_inputs_and_outputs
from d3m_ray.attribution.linear_use import cast_weights, use_of_linears
from d3m_ray.attribution.trak.lookups import Lookup, hook_lookups
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of, margins_of
from d3m_ray.training.precision import autocast


class ProjectedGradients:
    """Turns padded batches into projected gradients of the margin. Freezes the model's weights and hooks its layers.

    Raises ValueError where a parameter belongs to a layer of another kind than linear, embedding, LayerNorm and
    RMSNorm, or to two layers at once that are not both embeddings.
    """

    def __init__(self, model: PreTrainedModel, projection: SignProjection, precision: str = "float32") -> None:
        self.model = model.eval().requires_grad_(False)
        self.projection = projection
        self.precision = precision
        self._dtype = model.dtype
        self._layers = _layers_with_parameters(model)
        self._is_hooked = False
        self._tables: dict[int, Callable[[Lookup], torch.Tensor]] = {}  # by the id of an embedding's weight
        self._hashing: dict[tuple[str, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        # Of the batch under way:
        self._num_examples = 0
        self._pairs: list[tuple[torch.Tensor, torch.Tensor]] = []  # [N, T, k_out] and [N, T, k_in]
        self._vectors: list[tuple[str, torch.Tensor]] = []  # a parameter's name, and its gradients [N, I]
        self._rights: tuple[torch.Tensor, dict[str, torch.Tensor]] | None = None  # inputs, and what layers make of them

    def __call__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected gradients [N, d] and margins [N] of a batch, in the model's precision, float32 at least."""
        self._num_examples = len(batch.labels)
        if not self._is_hooked:
            self._hook_layers(batch)
        try:
            with torch.enable_grad():
                with autocast(self.model.device, self.precision):
                    logits = logits_of(self.model, batch)
                margins = margins_of(logits, batch.labels)
                margins.sum().backward()
            with torch.no_grad():
                return self._outer_products() * self.projection.scale + self._hashed(), margins.detach()
        finally:
            self._rights = None
            self._pairs, self._vectors = [], []

    def _outer_products(self) -> torch.Tensor:
        """[N, d] sum_t left_t right_t^T over the tokens of all layers."""
        assert self._pairs, "no hooked layer took part in the forward pass"
        left, right = (self._joined(sides) for sides in zip(*self._pairs, strict=True))
        return torch.bmm(left.transpose(1, 2), right).flatten(1)

    def _joined(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """[N, sum of T, k] of a [N, T, k] for each layer, float32 at least."""
        num_tokens = sum(each.shape[1] for each in values)
        dtype = torch.promote_types(self._dtype, torch.float32)
        out = torch.empty(self._num_examples, num_tokens, values[0].shape[2], dtype=dtype, device=values[0].device)
        return torch.cat(list(values), dim=1, out=out)

    def _hashed(self) -> torch.Tensor:
        """[N, d] sum of the vectors' entries, each in its row and with its sign."""
        dtype = torch.promote_types(self._dtype, torch.float32)
        sums = torch.zeros(self.projection.dim, self._num_examples, dtype=dtype, device=self.model.device)
        if not self._vectors:
            return sums.T
        names, vectors = zip(*self._vectors, strict=True)
        if names not in self._hashing:
            each = [self._hashing_of(name, values.shape[1]) for name, values in self._vectors]
            rows, signs = (torch.cat(parts) for parts in zip(*each, strict=True))
            self._hashing[names] = rows, signs
        rows, signs = self._hashing[names]
        return sums.index_add_(0, rows, torch.cat(vectors, dim=1).to(dtype).mul_(signs).T.contiguous()).T

    def _hashing_of(self, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        rows, signs = self.projection.hashing(name, size)
        return rows.to(self.model.device), signs.to(self.model.device, self._dtype)

    def _per_token(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """[N, T, .] from [N, T, .] or [N, .]."""
        if values.shape[0] != self._num_examples:
            raise ValueError(
                f"a layer keeps the examples of a batch apart in its first dimension; {name} received shape "
                f"{tuple(values.shape)} for {self._num_examples} examples"
            )
        return values.reshape(self._num_examples, -1, values.shape[-1])

    def _signs(self, name: str, num_rows: int, num_columns: int) -> torch.Tensor:
        """[num_rows, num_columns] signs in the dtype in which the layer's gradients arrive: +-1 is exact in any."""
        device = self.model.device
        low = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if low else self._dtype
        return self.projection.signs(name, num_rows, num_columns).to(device, dtype)

    def _hook_layers(self, batch: Batch) -> None:
        linears = [name for name, (kind, _) in self._layers.items() if kind == "linear"]
        with autocast(self.model.device, self.precision):
            use = use_of_linears(self.model, linears, batch)
            cast_weights(self.model, use)
            unreached = [(name,) for name in linears if name not in use.dtypes]  # by this example: by others, perhaps
            for names in [*use.together, *unreached]:
                self._hook_linears(names)
        for name, (kind, layer) in self._layers.items():
            if kind == "embedding":
                self._hook_embedding(name, layer)
            elif kind != "linear":
                self._hook_norm(name, layer)
        for module in self.model.modules():
            if isinstance(module, nn.Embedding):
                hook_lookups(module, self._tables)
        self._is_hooked = True

    def _hook_linears(self, names: tuple[str, ...]) -> None:
        """Hook layers that read the same input: the first of them that is reached projects it for all."""
        k_out, k_in = self.projection.factors
        layers = [self.model.get_submodule(name) for name in names]
        signs = [
            self._signs(f"{name}.in", k_in, num_inputs_and_outputs(layer)[0] + 1)
            for name, layer in zip(names, layers, strict=True)
        ]
        right_signs = torch.cat([each[:, :-1] for each in signs])
        of_bias = torch.cat([each[:, -1] * (layer.bias is not None) for each, layer in zip(signs, layers, strict=True)])

        def rights(inputs: torch.Tensor, narrowed: torch.Tensor) -> dict[str, torch.Tensor]:
            if self._rights is None or self._rights[0] is not inputs:
                values = self._per_token(names[0], narrowed.detach())
                projected = nn.functional.linear(values, right_signs, of_bias).split(k_in, dim=2)
                self._rights = inputs, dict(zip(names, projected, strict=True))
            return self._rights[1]

        def hook(name: str, layer: Any) -> None:
            left_signs = self._signs(f"{name}.out", k_out, num_inputs_and_outputs(layer)[1])
            right = torch.empty(0)

            def before_forward(_: nn.Module, args: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
                nonlocal right
                narrowed = args[0].to(right_signs.dtype)  # as the layer would: now it need not do it again
                right = rights(args[0], narrowed)[name]
                return (narrowed,)

            def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
                of_call = right

                def on_backward(gradient: torch.Tensor) -> torch.Tensor:
                    gradient = gradient.contiguous()  # once: what is returned goes on
                    values = self._per_token(name, gradient).to(left_signs.dtype)
                    self._pairs.append((nn.functional.linear(values, left_signs), of_call))
                    return gradient

                output.register_hook(on_backward)

            layer.register_forward_pre_hook(before_forward)
            layer.register_forward_hook(on_forward)

        for name, layer in zip(names, layers, strict=True):
            hook(name, layer)

    def _hook_embedding(self, name: str, layer: Any) -> None:
        k_out, k_in = self.projection.factors
        with autocast(self.model.device, self.precision):
            left_signs = self._signs(f"{name}.out", k_out, layer.embedding_dim)
        # In the model's own precision: embeddings stay out of autocast.
        right_signs = self._signs(f"{name}.in", k_in, layer.num_embeddings).T.contiguous()

        def on_lookup(lookup: Lookup) -> torch.Tensor:
            ids = lookup.ids
            # Position and type ids arrive as one row for the whole batch: expand it, or the gradients of the
            # examples would be summed on their way back through the broadcast.
            if ids.ndim == 1 or (ids.ndim == 2 and ids.shape[0] == 1):
                ids = ids.expand(self._num_examples, ids.shape[-1])
            output = lookup.of(ids)
            right = right_signs[ids]
            output.requires_grad_()  # the backward pass ends here: weights are frozen

            def on_backward(gradient: torch.Tensor) -> None:
                values = self._per_token(name, gradient).to(left_signs.dtype)
                self._pairs.append((nn.functional.linear(values, left_signs), right))

            output.register_hook(on_backward)
            return output

        self._tables[id(layer.weight)] = on_lookup

    def _hook_norm(self, name: str, layer: Any) -> None:
        dtype = self._dtype

        def on_forward(_: nn.Module, args: tuple[torch.Tensor], output: torch.Tensor) -> None:
            inputs = args[0].detach()  # which the backward pass needs too: to keep them costs nothing

            def on_backward(gradient: torch.Tensor) -> None:
                g = self._per_token(name, gradient).to(dtype)
                if layer.weight is not None:
                    normalised = self._per_token(name, _normalised(layer, inputs.to(dtype)))
                    self._vectors.append((f"{name}.weight", normalised.mul_(g).sum(dim=1)))
                if getattr(layer, "bias", None) is not None:
                    self._vectors.append((f"{name}.bias", g.sum(dim=1)))

            output.register_hook(on_backward)

        layer.register_forward_hook(on_forward)

    def projected(self, gradients: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """[d] what the same projection makes of one example's gradients, given by parameter name: dense, and slow."""
        k_out, k_in = self.projection.factors
        total = torch.zeros(self.projection.dim, dtype=self._dtype)
        for name, (kind, layer) in self._layers.items():
            of_layer = {key: gradients[f"{name}.{key}"] for key, _ in layer.named_parameters(recurse=False)}
            if kind in ("LayerNorm", "RMSNorm"):
                for key, gradient in of_layer.items():
                    rows, signs = self._hashing_of(f"{name}.{key}", gradient.numel())
                    total.index_add_(0, rows, signs * gradient)
                continue
            weight = of_layer["weight"]
            outputs_first = weight if type(layer) is nn.Linear else weight.T  # embeddings, and Conv1D
            columns = [outputs_first] + ([of_layer["bias"][:, None]] if "bias" in of_layer else [])
            matrix = torch.cat(columns, dim=1)
            left = self._signs(f"{name}.out", k_out, len(matrix))
            num_columns = matrix.shape[1] + (kind == "linear" and "bias" not in of_layer)
            right = self._signs(f"{name}.in", k_in, num_columns)[:, : matrix.shape[1]]
            total += self.projection.scale * (left @ matrix @ right.T).flatten()
        return total


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
