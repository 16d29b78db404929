"""Exact metagradients: derivatives of a target through the training run itself; and TracIn on the same replay.

Shapes: N train examples, G groups.

What the sum of the groups' mean targets would gain, per unit of a train example's weight in every batch that holds it,
had the checkpoint been trained with it: the derivative through backpropagation over all steps (MAGIC, Ilyas and
Engstrom 2025, arXiv 2504.16430). One reverse pass gives it for all train examples, whatever the number of queries. The
epoch that was chosen as the final model is held fixed. TracIn goes back through AdamW and clipping alike, but takes the
gradients of the steps as given: it cannot explode and costs half.
"""

import numpy as np

from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.metagradient import scores
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.pool import WorkerPool


def score_groups(inputs: AttributionInputs, config: MetagradientConfig, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: how much each train example's weight raises the mean target of each group's queries."""
    return scores.score_groups(scores.METAGRADIENT, inputs, pool)


def score_alignment(
    inputs: AttributionInputs, config: MetagradientConfig, pool: WorkerPool, weights: np.ndarray
) -> np.ndarray:
    """[N, 1] float32: the same for the groups' mean targets, summed in these weights [G]."""
    return scores.score_alignment(scores.METAGRADIENT, inputs, pool, weights)


def tracin_groups(inputs: AttributionInputs, config: MetagradientConfig, pool: WorkerPool) -> np.ndarray:
    """As `score_groups`, the gradients of the steps taken as given."""
    return scores.score_groups(scores.TRACIN, inputs, pool)


def tracin_alignment(
    inputs: AttributionInputs, config: MetagradientConfig, pool: WorkerPool, weights: np.ndarray
) -> np.ndarray:
    """As `score_alignment`, the gradients of the steps taken as given."""
    return scores.score_alignment(scores.TRACIN, inputs, pool, weights)


METAGRADIENT_SCORERS = Scorers(score_groups, None, score_alignment)
TRACIN_SCORERS = Scorers(tracin_groups, None, tracin_alignment)
