"""What the traker library asks of a project: an example's target as a function of the weights, and its columns.

Shapes: B examples of a batch, T tokens.
"""

from typing import Any

import torch
from torch import nn
from trak.gradient_computers import FunctionalGradientComputer
from trak.modelout_functions import AbstractModelOutput
from trak.utils import get_num_params
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import sdpa_mask

import d3m_ray.training.cpu_layers as cpu_layers
from d3m_ray.attribution.targets import target_values
from d3m_ray.records import QueryTarget
from d3m_ray.training.batching import Batch
from d3m_ray.training.model import margins_of

ATTENTION = "d3m_ray_vmap"

Tensors = dict[str, torch.Tensor]
"""Parameters or buffers by name."""


class Margin(AbstractModelOutput):
    """The library's text classification output over the three tensors of our batches, for models with `ATTENTION`.

    The library calls `get_output` under vmap, one example without a batch dimension at a time. It is the margin, or
    another target of queries.
    """

    def __init__(self, query_target: QueryTarget = "margin") -> None:
        self._query_target = query_target

    def get_output(
        self,
        model: nn.Module,
        weights: Tensors,
        buffers: Tensors,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        label: torch.Tensor,
    ) -> torch.Tensor:
        """The target of one example: ids and mask [T], label []."""
        margin = Margin.of_batch(model, weights, buffers, input_ids[None], attention_mask[None], label[None])
        return target_values(margin, self._query_target).sum()

    @staticmethod
    def get_out_to_loss_grad(
        model: nn.Module,
        weights: Tensors,
        buffers: Tensors,
        batch: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        """[B, 1] 1 - p: minus the derivative of the loss by the margin."""
        return torch.sigmoid(-Margin.of_batch(model, weights, buffers, *batch)).unsqueeze(-1)

    @staticmethod
    def of_batch(
        model: nn.Module,
        weights: Tensors,
        buffers: Tensors,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """[B] margins."""
        keywords = {"input_ids": input_ids, "attention_mask": attention_mask}
        return margins_of(torch.func.functional_call(model, (weights, buffers), (), keywords).logits, labels)


def full_mask(*arguments: Any, **options: Any) -> torch.Tensor | None:
    """The mask that transformers makes, also where no token is padded: vmap cannot look at values to leave it out."""
    always = {"allow_is_bidirectional_skip": False, "allow_is_causal_skip": False}
    return sdpa_mask(*arguments, **{**options, **always})


AttentionInterface.register(ATTENTION, cpu_layers.attention)
AttentionMaskInterface.register(ATTENTION, full_mask)


def gradient_computer(model: PreTrainedModel, query_target: QueryTarget = "margin") -> FunctionalGradientComputer:
    """The library's per-example gradients of the target. The model's attention becomes one that vmap can follow."""
    model.set_attn_implementation(ATTENTION)
    return FunctionalGradientComputer(model, Margin(query_target), get_num_params(model), model.dtype, model.device)


def columns(batch: Batch) -> tuple[torch.Tensor, ...]:
    """The batch as the library takes it: what `Margin` takes of an example, stacked."""
    return batch.input_ids, batch.attention_mask, batch.labels
