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


def _scorers(method: str) -> Scorers:
    """How either scores: [N, G] each group's mean target, or [N, 1] the groups' mean targets in these weights [G]."""

    def score_groups(inputs: AttributionInputs, config: MetagradientConfig, pool: WorkerPool) -> np.ndarray:
        return scores.score_groups(method, inputs, pool)

    def score_alignment(
        inputs: AttributionInputs, config: MetagradientConfig, pool: WorkerPool, weights: np.ndarray
    ) -> np.ndarray:
        return scores.score_alignment(method, inputs, pool, weights)

    return Scorers(score_groups, None, score_alignment)


METAGRADIENT_SCORERS = _scorers(scores.METAGRADIENT)
TRACIN_SCORERS = _scorers(scores.TRACIN)
