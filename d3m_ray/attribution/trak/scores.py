"""TRAK over every parameter: projected gradients per shard, Gram matrices summed, scores per group.

Shapes: N train examples, Q query examples, G groups, n examples of a shard, d projected dimensions.

Park et al. 2023 (arXiv 2303.14186), equation 13, over checkpoints c, with features Phi_c [N, d] and phi_c(q) [d] of the
margin, and p_c [N] the probability of the correct label:

    score(i, q) = mean_c[ Phi_c (Phi_c^T Phi_c)^-1 phi_c(q) ]_i * mean_c[ 1 - p_c ]_i

Another target than the margin weighs phi_c(q) by its slope at the query's margin (`targets`). Scores are linear in
phi_c(q): a group's score is that of the mean of its queries' features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import linalg
from scipy.special import expit

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, ScoringPrecision
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.shards import gradient_batches, make_shards
from d3m_ray.attribution.targets import target_slopes
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.pool import WorkerPool
from d3m_ray.records import QueryTarget
from d3m_ray.training.batching import TokenizedExamples, put_rows
from d3m_ray.training.precision import default_device


@dataclass(frozen=True, eq=False)
class GradientStep:
    """What a shard of gradients needs besides its example positions."""

    checkpoint: Checkpoint
    examples: TokenizedExamples
    config: TrakConfig
    precision: ScoringPrecision
    query_target: QueryTarget = "margin"
    """What the gradients are of; of train examples it is always the margin."""


@dataclass(frozen=True, eq=False)
class Features:
    """Projected gradients [n, d] and margins [n] of one shard, float32, or float64 where the precision is."""

    gradients: np.ndarray
    margins: np.ndarray

    @property
    def loss_slopes(self) -> np.ndarray:
        """[n] 1 - p."""
        slopes: np.ndarray = expit(-self.margins)
        return slopes


def score_groups(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32 scores: how much each train example raises the mean target of each group's queries."""
    return _score(inputs, config, pool, group_vectors=True)


def score_queries(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 scores: how much each train example raises the target of each query."""
    return _score(inputs, config, pool, group_vectors=False)


def _score(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool, group_vectors: bool) -> np.ndarray:
    projected, slopes = [], []
    for number, checkpoint in enumerate(inputs.checkpoints, start=1):
        of = f"checkpoint {number} of {len(inputs.checkpoints)}"
        targets = _query_targets(inputs, checkpoint, config, pool, f"trak queries, {of}", group_vectors)
        shards = make_shards(inputs.train)
        step = pool.put(GradientStep(checkpoint, inputs.train, config, inputs.precision))
        kept = pool.map_kept(f"trak gradients, {of}", project_shard, step, shards)
        gram = sum(pool.map(f"trak Gram matrix, {of}", gram_of_shard, None, kept))
        directions = pool.put(solve_gram(gram, targets.T, config.damping))
        results = list(pool.map(f"trak scores, {of}", score_shard, directions, kept))
        order = np.argsort(np.concatenate(shards))
        projected.append(np.concatenate([scores for scores, _ in results])[order])
        slopes.append(np.concatenate([slope for _, slope in results])[order])
    return (np.mean(projected, axis=0) * np.mean(slopes, axis=0)[:, None]).astype(np.float32)


def _query_targets(
    inputs: AttributionInputs,
    checkpoint: Checkpoint,
    config: TrakConfig,
    pool: WorkerPool,
    label: str,
    group_vectors: bool,
) -> np.ndarray:
    """[G, d] mean features of each group's queries, or [Q, d] those of each query; float64."""
    shards = make_shards(inputs.queries)
    step = pool.put(GradientStep(checkpoint, inputs.queries, config, inputs.precision, inputs.query_target))
    if not group_vectors:
        order = np.argsort(np.concatenate(shards))
        features = [shard.gradients for shard in pool.map(label, project_shard, step, shards)]
        return np.concatenate(features)[order].astype(np.float64)
    sums = sum(pool.map(label, sum_shard_by_group, step, shards))
    return sums / np.bincount(inputs.queries.groups, minlength=inputs.num_groups)[:, None]


def project_shard(step: GradientStep, positions: np.ndarray) -> Features:
    """Features of the examples at these positions, in their order."""
    projection = SignProjection(step.config.projection_dim, step.config.projection_seed)
    key = f"trak-{step.config.projection_dim}-{step.config.projection_seed}"
    model, gradients_of = loaded_model(
        step.checkpoint, key, step.precision, lambda model: ProjectedGradients(model, projection, step.precision)
    )
    dtype = np.float64 if step.precision == "float64" else np.float32
    gradients = np.zeros((len(positions), projection.dim), dtype=dtype)
    margins: np.ndarray = np.zeros(len(positions), dtype=dtype)
    batches = list(gradient_batches(step.examples.lengths[positions], model))
    found = []
    for batch in batches:
        features, batch_margins = gradients_of(step.examples.batch(positions[batch], model.device))
        found.append((features * target_slopes(batch_margins, step.query_target)[:, None], batch_margins))
    put_rows(gradients, batches, [of_batch for of_batch, _ in found])
    put_rows(margins, batches, [of_batch for _, of_batch in found])
    return Features(gradients, margins)


def sum_shard_by_group(step: GradientStep, positions: np.ndarray) -> np.ndarray:
    """[G, d] float64 sums of the features of each group's examples."""
    features = project_shard(step, positions)
    groups = step.examples.groups[positions]
    sums = np.zeros((int(step.examples.groups.max()) + 1, features.gradients.shape[1]))
    np.add.at(sums, groups, features.gradients.astype(np.float64))
    return sums


def gram_of_shard(_: None, features: Features) -> np.ndarray:
    """[d, d] float64 sum of the outer products of the shard's features, on the device of this process."""
    wide = torch.tensor(features.gradients, dtype=torch.float64, device=default_device())
    return (wide.T @ wide).cpu().numpy()


def score_shard(directions: np.ndarray, features: Features) -> tuple[np.ndarray, np.ndarray]:
    """[n, G] products of the shard's features with the solved targets, in the features' precision, and [n] 1 - p."""
    return features.gradients @ directions.astype(features.gradients.dtype), features.loss_slopes


def solve_gram(gram: np.ndarray, targets: np.ndarray, damping: float) -> np.ndarray:
    """(gram + lambda I)^-1 targets, float64, of the shape of the targets [d, G]; see `TrakConfig.damping` for lambda.

    Inverts on the span of the features only: what lies outside it meets no train example. So a singular Gram matrix
    (fewer examples than dimensions) without damping gives the least-norm solution, the limit of vanishing damping.
    """
    eigenvalues, eigenvectors = linalg.eigh(gram)
    spanned = spanned_by_features(eigenvalues)
    damped = eigenvalues[spanned] + damping * eigenvalues[spanned].mean()
    basis = eigenvectors[:, spanned]
    return (basis / damped) @ (basis.T @ targets)


def spanned_by_features(eigenvalues: np.ndarray) -> np.ndarray:
    """[d] bool: which directions of a Gram matrix features reach, given its ascending eigenvalues [d]."""
    # Features are float32: directions below its rounding, squared as eigenvalues are, carry no signal.
    return eigenvalues > eigenvalues[-1] * len(eigenvalues) * np.finfo(np.float32).eps ** 2


SCORERS = Scorers(score_groups, score_queries)
