"""Projected gradients of each example by the bergson library, where it is installed: it is no dependency.

Its collector takes inputs of three dimensions, so the pooler and the head, which read one token, are left out, as are
embeddings and norms, which it does not hook. The model is loaded in the fast precision, the loss is the margin, weights
are frozen but for the token embeddings, as its own pipeline has them.
"""

import importlib.util
from collections.abc import Callable

import torch
from corpora import stock
from torch import nn

from d3m_ray.training.batching import Batch
from d3m_ray.training.model import logits_of, margins_of
from d3m_ray.training.precision import supports_bfloat16
from d3m_ray.training.pretrained import PretrainedModel

PROJECTION_DIM = 16  # each side of each layer: what the library itself takes for queries
NOT_INSTALLED = "bergson is not installed here, so it is left out: pip install bergson brings it"


def _pass(pretrained: PretrainedModel) -> Callable[[Batch], torch.Tensor]:
    """What turns a batch of B examples into projected gradients [B, 256 a layer]."""
    from bergson.collector.gradient_collectors import StreamingGradientCollector
    from bergson.gradients import GradientProcessor

    model = stock(pretrained).eval().requires_grad_(False)
    model.get_input_embeddings().requires_grad_(True)
    if supports_bfloat16("cpu"):
        model = model.bfloat16()
    layers = {name for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".encoder." in name}
    processor = GradientProcessor(projection_dim=PROJECTION_DIM, include_bias=True, projection_seed=0)
    collector = StreamingGradientCollector(model=model, processor=processor, dtype=torch.float32, target_modules=layers)

    def one_pass(batch: Batch) -> torch.Tensor:
        with collector:
            margins_of(logits_of(model, batch), batch.labels).sum().backward()
        model.zero_grad()
        projected = torch.cat(list(collector.mod_grads.values()), dim=1)
        collector.mod_grads.clear()
        return projected

    return one_pass


bergson_pass = _pass if importlib.util.find_spec("bergson") is not None else None
