"""Labels drawn from the model's own probabilities: with them squared gradients average to the Fisher matrix.

With the true labels they would average to the empirical Fisher matrix, which is no curvature (Kunstner et al. 2019,
arXiv 1905.12558). Shapes: N train examples, C labels.
"""

from typing import TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)


def uniform_draws(num_examples: int, label_seed: int) -> np.ndarray:
    """[N] float64 in [0, 1) that depend on the seed and the position alone, so that shards draw the same labels."""
    return np.random.default_rng(label_seed).random(num_examples)


def drawn_labels(probabilities: Array, draws: Array) -> Array:
    """[N] int64: the label at which the cumulative probabilities [N, C] pass the draw [N]."""
    passed = probabilities.cumsum(1)[:, :-1]
    return (draws[:, None] >= passed).sum(1)
