"""Scores that attribution must beat: the train example's own loss, and chance.

Shapes: N train examples, Q query examples, G groups. Neither reads a query, so no target changes their scores.
"""

import numpy as np

from d3m_ray.attribution.forward import forward_pass, margins_of_shard
from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.pool import WorkerPool

RANDOM_SEED = 0


def loss_groups(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: minus the train example's own loss, the same for every group, so that the highest goes first."""
    return np.repeat(_scores_by_loss(inputs, pool)[:, None], inputs.num_groups, axis=1)


def loss_queries(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32: minus the train example's own loss, the same for every query."""
    return np.repeat(_scores_by_loss(inputs, pool)[:, None], len(inputs.queries), axis=1)


def _scores_by_loss(inputs: AttributionInputs, pool: WorkerPool) -> np.ndarray:
    """[N] float32: minus the cross-entropy in nats, log(1 + exp(-margin)), the mean over the checkpoints."""
    losses = []
    for number, checkpoint in enumerate(inputs.checkpoints, start=1):
        label = f"losses, checkpoint {number} of {len(inputs.checkpoints)}"
        margins = forward_pass(label, margins_of_shard, inputs, checkpoint, inputs.train, pool)
        losses.append(np.logaddexp(0.0, -margins))
    return -np.mean(losses, axis=0).astype(np.float32)


def random_groups(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: the mean over each group's queries of `random_queries`."""
    scores = random_queries(inputs, settings, pool)
    return group_scores(scores, inputs.queries.groups, inputs.num_groups).astype(np.float32)


def random_queries(inputs: AttributionInputs, settings: None, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 standard normal scores that depend on N and Q alone: what a table of LDS calls chance."""
    shape = (len(inputs.train), len(inputs.queries))
    return np.random.default_rng([RANDOM_SEED, *shape]).standard_normal(shape, dtype=np.float32)


LOSS_SCORERS = Scorers(loss_groups, loss_queries)
RANDOM_SCORERS = Scorers(random_groups, random_queries)
