"""Fixed shards of examples and their batches: cut by content, never by the number of workers, so that results do not
depend on it.
"""

from collections.abc import Iterator

import numpy as np
from torch import nn

from d3m_ray.training.batching import TokenizedExamples, budget_batches
from d3m_ray.training.budgets import tokens_at_once

MIN_SHARD_TOKENS = 4096  # some batches of work for each hand-over to a worker
MAX_SHARDS = 128  # many more than workers, so that they end nearly together

GRADIENT_TOKENS = 2048  # padded tokens of a gradient batch on a CPU: activations of a small model stay in cache


def gradient_batches(lengths: np.ndarray, model: nn.Module | None = None) -> Iterator[np.ndarray]:
    """Every example of a shard once, longest first, in batches of about `GRADIENT_TOKENS` tokens with their padding.

    Of a model on a GPU, of about as many as its memory has room for. Nearly even ones: filled to the brim, most shards
    would leave a last batch of a few examples, at the cost of many.
    """
    budget = GRADIENT_TOKENS if model is None else tokens_at_once(model, GRADIENT_TOKENS, keeps_all=True)
    num_tokens = sum(len(batch) * int(lengths[batch].max()) for batch in budget_batches(lengths, budget))
    num_batches = max(1, round(num_tokens / budget))
    yield from budget_batches(lengths, num_tokens // num_batches + int(lengths.max()))


def make_shards(examples: TokenizedExamples, max_shards: int = MAX_SHARDS) -> list[np.ndarray]:
    """Positions of every example once, in shards of like lengths and nearly equal token counts, longest first.

    Longest first lets the last shards under way be the cheap ones. Shards grow with the corpus past `max_shards`, so
    that the sums that come back from them (a Gram matrix each) stay few.
    """
    order = np.argsort(-examples.lengths, kind="stable")
    tokens = np.cumsum(examples.lengths[order])
    size = max(MIN_SHARD_TOKENS, -(-int(tokens[-1]) // max_shards)) if len(order) else 1
    numbers = (tokens - 1) // size
    return [shard for shard in np.split(order, np.flatnonzero(np.diff(numbers)) + 1) if len(shard)]
