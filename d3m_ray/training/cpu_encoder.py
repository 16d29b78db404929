"""The layers of BERT-like encoders on a CPU where only logits are wanted: no padding, and the last layer on one token.

Most classifiers of this kind read the first token alone. So of the last layer only what leads there is computed, which
leaves out a seventh of the products of six layers, and padding, a tenth of ToxiGen's tokens, is left out of all but
attention. What is left out enters no logit, so logits and gradients are those of transformers' layers, up to rounding.

Shapes: B examples, T tokens of the longest, S tokens of all without padding, H heads, D entries of a head, E = H D.
"""

import contextlib
import logging
import operator
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from d3m_ray.training.cpu_layers import ATTENTION, CpuDropout, drawn_lanes, drop, drops

ROUNDING = 1e-4  # of the largest logit: float32 stays far below it, another architecture is far above
TRIED_LENGTH = 5  # tokens of the longest made-up text

# Some padding is kept, so that batches have few sizes: what the allocator gets back of one then fits the next. Without,
# a process grew by half a gigabyte in 100 steps.
TOKEN_MULTIPLE = 64

_only_logits = ContextVar("only_logits", default=False)  # a thread's own: others may run with hooks meanwhile


@contextlib.contextmanager
def only_logits() -> Iterator[None]:
    """Inside, models compute what leads to their logits and nothing else: what stands behind an encoder gets one token.

    Hooks there want the others, which is why this is asked for, by training and by predictions. A model with hooks in
    its encoder, or around it, or with other modules there than it was tried with, computes all, as outside.
    """
    token = _only_logits.set(True)
    try:
        yield
    finally:
        _only_logits.reset(token)


def replace_encoder(model: PreTrainedModel) -> None:
    """Give a model on the CPU that has `cpu_layers`' attention the encoder of this module, if it computes the same.

    Its layers are those of BERT, with no parameter besides, and it is tried on made-up tokens.
    """
    if model.config._attn_implementation != ATTENTION or getattr(model.config, "is_decoder", False):
        return
    found = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if _is_encoder(child)
    ]
    if len(found) != 1:
        return
    [(parent, name, stock)] = found
    around = [m for m in model.modules() if m is not model and any(child is stock for child in m.modules())]
    ours = UnpaddedEncoder(stock, [m for m in around if m is not stock])
    setattr(parent, name, ours)
    if not _gives_alike(model, ours):
        setattr(parent, name, stock)


class UnpaddedEncoder(nn.Module):
    """An encoder of BERT's layers; inside `only_logits` it gives the first token's last state alone, [B, 1, E]."""

    def __init__(self, stock: nn.Module, around: Iterable[nn.Module] = ()) -> None:
        """`around` are the modules that hold it and give on more than logits."""
        super().__init__()
        layers: Any = stock.layer
        self.layer = layers
        self.num_unpadded = 0
        """Forward passes that left padding out."""
        # In tuples they are no children: the layers are this one's already.
        self._stock = (stock,)
        self._tried = tuple(layers.modules())
        self._around = tuple(around)

    def forward(self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **options: Any) -> Any:
        """As the stock encoder's, which is called with what only that knows."""
        is_on_cpu = hidden_states.device.type == "cpu"  # a stackable model is built here and may be moved
        is_taken = _only_logits.get() and is_on_cpu and self._is_as_tried()
        if not (is_taken and _is_padded_on_the_right(attention_mask)):
            return self._stock[0](hidden_states, attention_mask=attention_mask, **options)
        seen = None if attention_mask is None else attention_mask[:, 0, 0]  # the same keys for every query
        dtype = hidden_states.dtype
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            first = _first_states(self.layer, hidden_states, Tokens.of(hidden_states, seen), dtype)
        self.num_unpadded += 1
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=first[:, None])

    def _is_as_tried(self) -> bool:
        """Whether the layers are called for their weights alone: no module is another, as an adapter, or hooked."""
        modules = tuple(self.layer.modules())
        is_same = len(modules) == len(self._tried) and all(map(operator.is_, modules, self._tried))
        return is_same and not any(map(_is_hooked, (self, *modules, *self._around)))


def _is_hooked(module: nn.Module) -> bool:
    hooks = module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    return bool(hooks)


def _is_padded_on_the_right(attention_mask: torch.Tensor | None) -> bool:
    """Whether every example's first token, which the head reads, is seen by a mask that says what is seen, or none."""
    if attention_mask is None:
        return True
    return attention_mask.dtype == torch.bool and bool(attention_mask[:, 0, 0, 0].all())


@dataclass(frozen=True, eq=False)
class Tokens:
    """Where the tokens of a padded batch are when they stand end to end."""

    shape: torch.Size
    """[B, T]"""
    places: torch.Tensor | None
    """[S] ascending, of the B T padded ones; None where nothing is padded."""
    firsts: torch.Tensor
    """[B] of the S, each example's first."""
    bias: torch.Tensor | None
    """[B, 1, 1, T] added to the scores of attention: so far below zero at padding that its weight is 0."""

    @classmethod
    def of(cls, padded: torch.Tensor, seen: torch.Tensor | None) -> "Tokens":
        """Of hidden states [B, T, E] and of which of them [B, T] are no padding, left out all."""
        num_examples, width = padded.shape[:2]
        if seen is None or bool(seen.all()):
            return cls(padded.shape[:2], None, torch.arange(num_examples) * width, None)
        taken = seen.flatten().clone()
        num_missing = -int(taken.sum()) % TOKEN_MULTIPLE
        taken[(~taken).nonzero()[:num_missing, 0]] = True
        lengths = taken.view(seen.shape).sum(dim=1)
        bias = torch.zeros(seen.shape, dtype=padded.dtype).masked_fill_(~seen, torch.finfo(padded.dtype).min)
        return cls(padded.shape[:2], taken.nonzero().squeeze(1), lengths.cumsum(0) - lengths, bias[:, None, None])

    def end_to_end(self, padded: torch.Tensor) -> torch.Tensor:
        """[S, E] of [B T, E]."""
        return padded if self.places is None else padded.index_select(0, self.places)

    def padded(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, T, E] of [S, E], zero at padding."""
        if self.places is not None:
            zeros = tokens.new_zeros(self.shape.numel(), tokens.shape[1])
            tokens = zeros.index_copy(0, self.places, tokens)
        return tokens.view(*self.shape, -1)


def _first_states(layers: Any, padded: torch.Tensor, tokens: Tokens, dtype: torch.dtype) -> torch.Tensor:
    """[B, E] the first tokens' states after the last layer, of states [B, T, E] before the first.

    Products are of `dtype`; what is added up along the layers stays in that of the states, as under autocast.
    """
    states = tokens.end_to_end(padded.flatten(0, 1))
    for layer in layers:
        is_last = layer is layers[-1]
        context = _attention(layer.attention.self, states.to(dtype), tokens, is_last)
        states = states.index_select(0, tokens.firsts) if is_last else states
        states = _add_and_norm(layer.attention.output, context, states, tokens, is_last)
        inner = layer.intermediate.intermediate_act_fn(_linear(states.to(dtype), layer.intermediate.dense))
        states = _add_and_norm(layer.output, inner, states, tokens, is_last)
    return states


def _attention(module: Any, states: torch.Tensor, tokens: Tokens, is_last: bool) -> torch.Tensor:
    """[S, E] what every token attends to, or [B, E] what the first ones do, of states [S, E]."""
    num_heads = module.num_attention_heads
    if is_last:
        of_firsts = _linear(states.index_select(0, tokens.firsts), module.query)
        (query,) = _by_head(of_firsts[:, None], 1, num_heads)
        key, value = _by_head(tokens.padded(_linear(states, module.key, module.value)), 2, num_heads)
    else:
        joined = _linear(states, module.query, module.key, module.value)
        query, key, value = _by_head(tokens.padded(joined), 3, num_heads)
    products = torch.bmm(query, key.transpose(1, 2))
    scores = products.to(torch.promote_types(products.dtype, torch.float32)) * module.scaling
    scores = scores.unflatten(0, (-1, num_heads))
    if tokens.bias is not None:
        scores = scores + tokens.bias
    weights = scores.softmax(dim=-1).to(value.dtype)
    if module.training and drops(module.dropout.p):
        num_examples, width = tokens.shape
        lanes = drawn_lanes(torch.Size([num_examples, num_heads, width, width]))
        weights = drop(weights, lanes[:, :, :1] if is_last else lanes, module.dropout.p)
    context = torch.bmm(weights.flatten(0, 1), value).unflatten(0, (-1, num_heads)).transpose(1, 2)
    context = context.flatten(2).flatten(0, 1)
    return context if is_last else tokens.end_to_end(context)


def _by_head(joined: torch.Tensor, num_parts: int, num_heads: int) -> torch.Tensor:
    """[parts, B H, T, D] of what [B, T, parts H D] holds side by side."""
    parts = joined.unflatten(2, (num_parts, num_heads, -1)).permute(2, 0, 3, 1, 4)
    return parts.flatten(1, 2).contiguous()


def _linear(inputs: torch.Tensor, *modules: nn.Linear) -> torch.Tensor:
    """[S, sum of outputs] what layers make of the same inputs [S, I], side by side, by one product."""
    weights = [module.weight.to(inputs.dtype) for module in modules]
    biases = [module.bias.to(inputs.dtype) for module in modules]
    if len(modules) > 1:
        weights, biases = [torch.cat(weights)], [torch.cat(biases)]
    return torch.addmm(biases[0], inputs, weights[0].t())


def _add_and_norm(
    module: Any, inputs: torch.Tensor, states: torch.Tensor, tokens: Tokens, is_last: bool
) -> torch.Tensor:
    """States of the same tokens: the layer's outputs, dropped out, added to what was before it, normalised.

    Dropout is drawn for the padded batch, as by transformers' layers, so that it is the same in both.
    """
    outputs = _linear(inputs, module.dense)
    if module.training and drops(module.dropout.p):
        lanes = drawn_lanes(torch.Size([*tokens.shape, outputs.shape[1]]))
        kept = lanes[:, 0].contiguous() if is_last else tokens.end_to_end(lanes.flatten(0, 1))
        outputs = drop(outputs, kept, module.dropout.p)
    normalised: torch.Tensor = module.LayerNorm(outputs + states)
    return normalised


def _is_encoder(module: nn.Module) -> bool:
    """Whether these are layers of BERT's form with no parameter of their own besides."""
    layers = getattr(module, "layer", None)
    return isinstance(layers, nn.ModuleList) and len(layers) > 0 and all(_is_layer(layer) for layer in layers)


def _is_layer(layer: Any) -> bool:
    try:
        attention, intermediate = layer.attention, layer.intermediate
        linears = [attention.self.query, attention.self.key, attention.self.value, attention.output.dense]
        linears += [intermediate.dense, layer.output.dense]
        norms = [attention.output.LayerNorm, layer.output.LayerNorm]
        rates = [attention.self.dropout, attention.output.dropout, layer.output.dropout]
        is_known = all(type(module) is nn.Linear and module.bias is not None for module in linears)
        is_known = is_known and all(type(module) is nn.LayerNorm for module in norms)
        is_known = is_known and all(type(module) is CpuDropout for module in rates)
        read = {id(p) for module in [*linears, *norms] for p in module.parameters()}
        named = (attention.self.num_attention_heads, attention.self.scaling, intermediate.intermediate_act_fn)
    except AttributeError:
        return False
    return is_known and None not in named and read == {id(p) for p in layer.parameters()}


def _gives_alike(model: PreTrainedModel, ours: UnpaddedEncoder) -> bool:
    """Whether the model's logits inside `only_logits` are its own, with dropout and without."""
    was_training = model.training
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            return all(_gives_alike_in(mode, model, ours) for mode in (False, True))
    except Exception:  # made-up tokens are no text: what else is wrong is found on real ones
        logging.getLogger(__name__).debug("encoder tried on no text", exc_info=True)
        return False
    finally:
        model.train(was_training)


def _gives_alike_in(training: bool, model: PreTrainedModel, ours: UnpaddedEncoder) -> bool:
    """Tried on made-up tokens of unlike lengths, in training or evaluation mode, where the model is left."""
    input_ids = torch.arange(3 * TRIED_LENGTH).view(3, TRIED_LENGTH) % model.config.vocab_size
    seen = torch.arange(TRIED_LENGTH) < torch.tensor([[TRIED_LENGTH], [TRIED_LENGTH - 1], [2]])
    model.train(training)

    def logits() -> torch.Tensor:
        torch.manual_seed(0)
        tried: torch.Tensor = model(input_ids=input_ids, attention_mask=seen.long()).logits
        return tried

    expected, num_before = logits(), ours.num_unpadded
    with only_logits():
        found = logits()
    is_taken = ours.num_unpadded == num_before + 1  # a mask of another kind leaves it to the stock encoder
    rounding = ROUNDING * float(expected.abs().max())  # of logits that are all zero: nothing is shown
    return is_taken and rounding > 0 and bool((found - expected).abs().max() <= rounding)
