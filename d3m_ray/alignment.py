"""Group weights and group alignment: one number per train example, low where it hurts the groups the model fails on.

Shapes: N train examples, G groups.
"""

import numpy as np
from scipy.special import softmax

from d3m_ray.config import AlignmentConfig


def group_weights(losses: np.ndarray, config: AlignmentConfig) -> np.ndarray:
    """[G] float64 weights from the groups' mean val losses [G], in nats.

    `softmax` is exp(beta * loss), normalised to sum to 1 (Jain et al. 2024, arXiv 2406.16846, section 4); `loss` is the
    loss itself, as in that paper's code; `uniform` is 1 / G.
    """
    if config.group_weights == "uniform":
        return np.full(len(losses), 1 / len(losses))
    if config.group_weights == "loss":
        return losses.astype(np.float64)
    return softmax(config.beta * losses.astype(np.float64))


def group_alignment(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[N] float64: the scores [N, G] of each train example, weighed over the groups (Jain et al. 2024, section 4)."""
    return scores.astype(np.float64) @ weights
