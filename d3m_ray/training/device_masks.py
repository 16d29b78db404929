"""Attention masks on a GPU that are made without reading them: torch's fast kernels, and no step that waits.

transformers leaves the mask out where a batch has no padding, so that torch may take its flash kernel, and finds out by
reading the mask, for which the host waits in every forward pass. Here the batch says it: the host knows all lengths.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from d3m_ray.training.cpu_layers import takes_attention

ATTENTION = "d3m_ray_sdpa"

_is_padded: ContextVar[bool | None] = ContextVar("is_padded", default=None)  # of the batch under way; a thread's own


@contextlib.contextmanager
def known_padding(is_padded: bool) -> Iterator[None]:
    """Inside, masks are of a batch that has no padding, or that may have some, and nothing is read to find out."""
    token = _is_padded.set(is_padded)
    try:
        yield
    finally:
        _is_padded.reset(token)


def mask(**options: Any) -> torch.Tensor | None:
    """What `sdpa_mask` makes of the same options: None where every token sees every other, or all before it."""
    is_padded = _is_padded.get()
    if is_padded is False:
        options["attention_mask"] = None  # true everywhere
    elif is_padded:
        options |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    made: torch.Tensor | None = sdpa_mask(**options)
    return made


AttentionInterface.register(ATTENTION, sdpa_attention_forward)
AttentionMaskInterface.register(ATTENTION, mask)


def replace_masks(model: PreTrainedModel) -> None:
    """Give a model that takes torch's attention the masks of this module; one with attention of its own keeps its."""
    if model.config._attn_implementation == "sdpa" and takes_attention(model):
        model.set_attn_implementation(ATTENTION)
