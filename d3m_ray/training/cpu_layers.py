"""Attention and dropout for short texts on a CPU, where torch's own take a fifth of a training step longer.

Shapes: B examples, H heads, T tokens, D entries of a head.
"""

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

ATTENTION = "d3m_ray_cpu"
LANE = 1 << 16  # random bits are drawn 64 at a time and read as four numbers of 16 bits


class CpuDropout(nn.Module):
    """Dropout of rate p, rounded to a multiple of 2^-16, from torch's global random stream.

    `nn.Dropout` draws one number of the stream per element, this one a quarter of one.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return dropout(values, self.p) if self.training else values


def dropout(values: torch.Tensor, p: float) -> torch.Tensor:
    """Values times a mask that is 0 with probability p and 1 / (1 - p) otherwise, of their shape and dtype."""
    return drop(values, drawn_lanes(values.shape, values.device), p) if drops(p) else values


def drops(p: float) -> bool:
    """Whether dropout of this rate draws anything: a rate below half of 2^-16 is none."""
    return round(p * LANE) > 0


def drop(values: torch.Tensor, lanes: torch.Tensor, p: float) -> torch.Tensor:
    """Values times the mask of dropout that lanes of their shape stand for; the lanes are used up."""
    num_dropped = round(p * LANE)  # of every LANE lanes, the lowest
    if num_dropped == LANE:
        return values * 0.0
    lowest_kept = num_dropped - LANE // 2
    # 0 and 1 by arithmetic of 16 bits: torch compares and converts what is true or false one by one.
    kept = lanes.clamp_(lowest_kept - 1, lowest_kept).sub_(lowest_kept - 1).to(values.dtype)
    return values * kept.mul_(LANE / (LANE - num_dropped))


def drawn_lanes(shape: torch.Size, device: torch.device | str = "cpu") -> torch.Tensor:
    """Random int16 of this shape: of values that are a part of a batch, the part of what the batch would have drawn."""
    part = _part.get()
    if part is None:
        return _drawn(shape, device)
    batch_size, rows = part
    if shape[0] != len(rows):
        raise NotByExampleError(f"values of shape {tuple(shape)} are not those of {len(rows)} examples")
    return _drawn(torch.Size([batch_size, *shape[1:]]), device)[rows]


def _drawn(shape: torch.Size, device: torch.device | str) -> torch.Tensor:
    bits = torch.empty(-(-shape.numel() // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return bits.view(torch.int16)[: shape.numel()].view(shape)


class NotByExampleError(ValueError):
    """Dropout falls on values whose first dimension is not that of the examples: a part of a batch has no part of it.

    Such as a table of relative positions (DeBERTa), whose rows may be as many as a part's examples by chance.
    """


# B of the batch, and the rows [K] of it that are under way; a thread's own.
_part: ContextVar[tuple[int, torch.Tensor] | None] = ContextVar("part", default=None)


@contextlib.contextmanager
def dropout_of_rows(batch_size: int, rows: np.ndarray) -> Iterator[None]:
    """Inside, the K examples of a forward pass have the masks of these rows [K] of a batch of `batch_size` examples.

    Masks are drawn for the whole batch and cut: what stays of a batch sees the same dropout, whatever else was left
    out. Raises `NotByExampleError` on values whose first dimension is not that of the examples.
    """
    token = _part.set((batch_size, torch.from_numpy(rows)))
    try:
        yield
    finally:
        _part.reset(token)


class UnsupportedAttentionError(ValueError):
    """A layer asks of `attention` what it does not compute: the model takes transformers' own attention instead."""


# What the mask holds already, or what only other kernels read. Everything else changes the values of attention.
_CHANGES_NOTHING = frozenset(
    {
        "sliding_window", "position_ids", "deterministic", "hidden_states", "use_cache", "output_hidden_states",
        "num_items_in_batch",
    }
)  # fmt: skip


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    position_bias: torch.Tensor | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """[B, T, H, D] softmax(query key^T * scaling + position_bias) value, as transformers' function for sdpa gives it.

    Queries are [B, H, T, D]; keys and values too, or a head for each group of H / `module.num_key_value_groups`.
    `attention_mask` is True where a key is seen, or added to the scores; without one, a token sees those before it
    where `is_causal` (left out, where the module is). A padded query that sees none gives finite values, which nobody
    reads. Raises `UnsupportedAttentionError` on a keyword that would change the values and is not honoured here.
    """
    asked = {name for name, value in others.items() if value is not None and value is not False}
    unknown = sorted(asked - _CHANGES_NOTHING)
    if unknown:
        raise UnsupportedAttentionError(f"{ATTENTION} does not compute {', '.join(unknown)} of {type(module).__name__}")
    num_groups = getattr(module, "num_key_value_groups", 1)
    if num_groups > 1:
        key, value = (heads.repeat_interleave(num_groups, dim=1) for heads in (key, value))
    if attention_mask is None and query.shape[2] > 1:
        is_causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
        attention_mask = _causal_mask(query, key) if is_causal else None
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None and attention_mask.is_floating_point():
        scores = scores + attention_mask
    elif attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = _drop(scores.softmax(dim=-1).to(value.dtype), dropout if module.training else 0.0)
    return (weights @ value).transpose(1, 2).contiguous(), None


def _causal_mask(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """[T, T] True where a key comes before its query or is at the same place."""
    return torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()


_drop = dropout  # under another name inside `attention`, whose keyword transformers calls `dropout`

AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def replace_attention(model: PreTrainedModel) -> None:
    """Give a model on the CPU `attention` if it can take it, or else leave it transformers' own, sdpa or eager.

    A class can that calls attention functions by name and needs no more than sdpa's. The others have attention of
    their own and add the mask to their scores, where a boolean one hides no padding (MPNet, RoFormer, RemBERT). What a
    layer hands over shows only when it is called.
    """
    if not takes_attention(model):
        return
    stock, is_training = model.config._attn_implementation, model.training
    model.set_attn_implementation(ATTENTION)
    try:
        with torch.inference_mode():
            model.eval()(input_ids=torch.zeros(1, 3, dtype=torch.int64), attention_mask=torch.ones(1, 3))
    except UnsupportedAttentionError:
        model.set_attn_implementation(stock)
    except Exception:  # three times token 0 is no text: what else is wrong is found on real ones
        logging.getLogger(__name__).debug("attention tried on no text", exc_info=True)
    model.train(is_training)


def takes_attention(model: PreTrainedModel) -> bool:
    """Whether the model's class calls attention functions by name and needs no more than sdpa's."""
    return bool(model._supports_sdpa and model._can_set_attn_implementation())


def replace_dropout(model: nn.Module) -> None:
    """Put `CpuDropout` in the place of each `nn.Dropout` of the model; a subclass may drop otherwise and stays."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, CpuDropout(child.p))
