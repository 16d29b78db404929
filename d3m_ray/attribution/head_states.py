"""The last hidden states that a classifier's head reads: of the first token, of the last, or of all.

Shapes: N examples of a batch, T tokens, H hidden width.
"""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of


class HeadStates:
    """Gives of each example the mean of the states that its logits have a gradient by. Freezes the model's weights.

    The states are the body's last hidden states, or what its pooler takes in where it has one. Heads differ in which
    token they read (BERT the first, GPT-2 the last that is no padding, BART the end of the decoder's text), and say so
    nowhere but by what they compute.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval().requires_grad_(False)
        self._read: list[torch.Tensor] = []
        body = model.base_model
        body.register_forward_hook(self._after_body)
        if isinstance(pooler := getattr(body, "pooler", None), nn.Module):
            pooler.register_forward_pre_hook(self._before_pooler)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """[N, H] in the precision of the forward pass.

        Raises ValueError where an example's logits depend on none of the states.
        """
        self._read = []
        with torch.enable_grad():  # the graph begins at the states
            logits_of(self.model, batch)[:, 0].sum().backward()
        for states in self._read:
            if states.grad is None:
                continue
            is_read = states.grad.abs().sum(dim=2) > 0
            if is_read.any(dim=1).all():
                weights = is_read.to(states.dtype)[:, :, None]
                return (states.detach() * weights).sum(dim=1) / weights.sum(dim=1)
        raise ValueError(
            f"embedding compares the last hidden states that the head reads, and {type(self.model).__name__} reads none"
        )

    def _leaf(self, states: torch.Tensor) -> torch.Tensor:
        # A pooler may be given one token's states only (ALBERT): [N, 1, H] as well.
        leaf = states.detach().reshape(len(states), -1, states.shape[-1]).requires_grad_()
        self._read.append(leaf)
        return leaf.view(states.shape)

    def _after_body(self, _: nn.Module, args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            return (self._leaf(output[0]), *output[1:])
        output["last_hidden_state"] = self._leaf(output.last_hidden_state)
        return output

    def _before_pooler(self, _: nn.Module, args: tuple) -> tuple:
        return (self._leaf(args[0]), *args[1:])
