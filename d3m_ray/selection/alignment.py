"""Group weights and group alignment: one number per train example, low where it hurts the groups the model fails on.

Shapes: N train examples, G groups, Q queries, C queries of one class.
"""

import numpy as np
from scipy import linalg
from scipy.special import softmax

from d3m_ray.selection.settings import AlignmentConfig

BLOCK_ENTRIES = 2**24  # of scores that are float64 at once
ALIGNMENT_VERSION = "1"  # raised when the same scores and settings give another alignment, or other pseudo-groups


def group_weights(losses: np.ndarray, config: AlignmentConfig) -> np.ndarray:
    """[G] float64 weights from the groups' mean val losses [G], in nats.

    `softmax` is exp(beta * loss), normalised to sum to 1 (Jain et al. 2024, arXiv 2406.16846, section 4); `loss` is the
    loss itself, as in that paper's code; `uniform` is 1 / G. Under the target `worst_loss` the weights are
    exp(worst_loss_beta * loss), normalised: the gradient by the losses L_g of their smooth maximum
    log(sum_g exp(worst_loss_beta L_g)) / worst_loss_beta, which alignment then has minus the gradient of.
    """
    if config.target == "worst_loss":
        return softmax(config.worst_loss_beta * losses.astype(np.float64))
    if config.group_weights == "uniform":
        return np.full(len(losses), 1 / len(losses))
    if config.group_weights == "loss":
        return losses.astype(np.float64)
    return softmax(config.beta * losses.astype(np.float64))


def group_alignment(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[N] float64: the scores [N, G] of each train example, weighed over the groups (Jain et al. 2024, section 4)."""
    return scores.astype(np.float64) @ weights


def pseudo_groups(query_scores: np.ndarray, query_labels: np.ndarray) -> np.ndarray:
    """[Q] int64 groups of the queries found in their scores [N, Q] alone: up to two of each class, counted from 0.

    Auto-D3M (Jain et al. 2024, arXiv 2406.16846): within a class, queries are split by the sign of their projection on
    the leading principal component of their score vectors. A class's first query is in the first of its groups; a class
    of one query, or of equal scores, is one group. Scores are centred over the class before they are projected; the
    paper's code centres to find the component, projects without, and divides each query's scores by their norm.
    Raises ValueError where a score is not finite.
    """
    if not np.isfinite(query_scores).all():
        raise ValueError("scores are finite numbers; received NaN or infinity among those of the queries")
    groups = np.zeros(len(query_labels), dtype=np.int64)
    num_groups = 0
    for label in np.unique(query_labels):
        of_class = np.flatnonzero(query_labels == label)
        second = _apart_from_the_first(query_scores[:, of_class])
        groups[of_class] = num_groups + second
        num_groups += 1 + int(second.any())
    return groups


def _apart_from_the_first(scores: np.ndarray) -> np.ndarray:
    """[C] bool: which columns of the scores [N, C] lie across from the first along the leading principal component.

    The projections are, up to their scale, the leading eigenvector of the Gram matrix [C, C] of the centred columns.
    Its sign is arbitrary: the first column that does not project to zero settles it.
    """
    num_columns = scores.shape[1]
    gram, size = np.zeros((num_columns, num_columns)), max(1, BLOCK_ENTRIES // num_columns)
    for start in range(0, len(scores), size):  # rows are centred one by one: no more than a block need be float64
        block = scores[start : start + size].astype(np.float64)
        block -= block.mean(axis=1, keepdims=True)
        gram += block.T @ block
    _, eigenvectors = linalg.eigh(gram, subset_by_index=[num_columns - 1, num_columns - 1])
    projections = eigenvectors[:, 0]  # of equal columns: one sign all over, or a single entry that is not zero
    is_zero = np.abs(projections) <= np.sqrt(np.finfo(np.float64).eps) * np.abs(projections).max()
    return ~is_zero & (np.sign(projections) != np.sign(projections[~is_zero][0]))
