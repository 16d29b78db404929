"""Labels drawn from the model's own probabilities: with them squared gradients average to the Fisher matrix.

With the true labels they would average to the empirical Fisher matrix, which is no curvature (Kunstner et al. 2019,
arXiv 1905.12558). Shapes: N train examples.
"""

import numpy as np
from scipy.special import expit


def uniform_draws(num_examples: int, label_seed: int) -> np.ndarray:
    """[N] float64 in [0, 1) that depend on the seed and the position alone, so that shards draw the same labels."""
    return np.random.default_rng(label_seed).random(num_examples)


def drawn_labels(margins: np.ndarray, labels: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """[N] int64: label 1 where the draw is below its probability, given the margins of the true labels, all [N]."""
    probability_of_1 = expit(np.where(labels == 1, margins, -margins))
    return (draws < probability_of_1).astype(np.int64)
