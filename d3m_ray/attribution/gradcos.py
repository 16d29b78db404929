"""Cosine of projected gradients: TRAK's features at unit length, without its Gram matrix.

Shapes: N train examples, Q query examples, G groups, n examples of a shard, d projected dimensions.

With the features phi_c of the margin at checkpoint c (`trak`), u = phi / |phi|, and f' the slope of the target at the
query's margin,

    score(i, q) = mean_c f'(m_c(q)) u_c(i) . u_c(q)

so that no example counts for its gradient's length, as the few that training has not fitted would (LESS, Xia et al.
2024, arXiv 2402.04333, normalises alike). Linear in the query's side: a group's score is that of its queries' mean.
"""

import numpy as np
import torch

from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.shards import make_shards
from d3m_ray.attribution.targets import target_slopes
from d3m_ray.attribution.trak.scores import GradientStep, project_shard
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import WorkerPool


def gradcos_groups(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: the mean over each group's queries of `gradcos_queries`."""
    return _score(inputs, config, pool, group_means=True)


def gradcos_queries(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 cosines of projected gradients, times the slope of each query's target; the mean over checkpoints.

    Of TRAK's settings it reads the projection's alone.
    """
    return _score(inputs, config, pool, group_means=False)


def _score(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool, group_means: bool) -> np.ndarray:
    scores = []
    for number, checkpoint in enumerate(inputs.checkpoints, start=1):
        of = f"checkpoint {number} of {len(inputs.checkpoints)}"
        shards, query_shards = make_shards(inputs.train), make_shards(inputs.queries)
        step = pool.put(GradientStep(checkpoint, inputs.queries, config, inputs.precision))
        found = list(pool.map(f"gradcos queries, {of}", unit_features, step, query_shards))
        order = np.argsort(np.concatenate(query_shards))
        units, margins = (np.concatenate(parts)[order] for parts in zip(*found, strict=True))
        slopes = target_slopes(torch.from_numpy(margins), inputs.query_target).numpy()
        directions = (units * slopes[:, None]).astype(np.float64).T
        if group_means:
            directions = group_scores(directions, inputs.queries.groups, inputs.num_groups)
        step = pool.put(GradientStep(checkpoint, inputs.train, config, inputs.precision))
        cosines = pool.map(f"gradcos, {of}", cosines_of_shard, step, shards, [pool.put(directions)] * len(shards))
        scores.append(np.concatenate(list(cosines))[np.argsort(np.concatenate(shards))])
    return np.mean(scores, axis=0).astype(np.float32)


def unit_features(step: GradientStep, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[n, d] features of length 1, or 0 where an example has no gradient, and [n] margins."""
    features = project_shard(step, positions)
    lengths = np.linalg.norm(features.gradients, axis=1, keepdims=True)
    return features.gradients / np.where(lengths > 0, lengths, 1), features.margins


def cosines_of_shard(step: GradientStep, positions: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """[n, G] products of the shard's unit features with the queries' directions [d, G]."""
    units, _ = unit_features(step, positions)
    cosines: np.ndarray = units.astype(np.float64) @ directions
    return cosines


SCORERS = Scorers(gradcos_groups, gradcos_queries)
