"""Attention and dropout for short texts on a CPU, where torch's own take a fifth of a training step longer.

Shapes: B examples, H heads, T tokens, D entries of a head.
"""

from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface
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
    num_dropped = round(p * LANE)  # of every LANE lanes
    if num_dropped == 0:
        return values
    bits = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    lanes = bits.view(torch.int16)[: values.numel()].view(values.shape)
    kept = (lanes >= num_dropped - LANE // 2).to(values.dtype)
    return values * kept.mul_(LANE / (LANE - num_dropped))


def attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """[B, T, H, D] softmax(query key^T * scaling) value, in transformers' terms; queries, keys, values [B, H, T, D].

    `attention_mask` is True where a key is seen, or added to the scores. A padded query that sees none gives finite
    values, which nobody reads.
    """
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if attention_mask is not None and attention_mask.is_floating_point():
        scores = scores + attention_mask
    elif attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    weights = _drop(scores.softmax(dim=-1).to(value.dtype), dropout if module.training else 0.0)
    return (weights @ value).transpose(1, 2).contiguous(), None


_drop = dropout  # under another name inside `attention`, whose keyword transformers calls `dropout`

AttentionInterface.register(ATTENTION, attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def replace_dropout(model: nn.Module) -> None:
    """Put `CpuDropout` in the place of each `nn.Dropout` of the model."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, CpuDropout(child.p))
