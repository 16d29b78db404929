"""EK-FAC influence on every linear layer: what removing a train example does to margins, to second order in the loss.

Shapes: N train examples, Q query examples, G groups, n examples of a shard, K targets (groups or queries) of a block,
O outputs of a layer, I its inputs with a trailing 1 where it has a bias.

With m_q the margin of query q, L_i the loss of train example i and F the Fisher matrix of `curvature`, layer by layer
(Grosse et al. 2023, arXiv 2308.03296, equation 24),

    score(i, q) = -grad m_q^T (F + damping)^-1 grad L_i = (1 - p_i) grad m_q^T (F + damping)^-1 grad m_i,

the mean over checkpoints; another target than the margin weighs grad m_q by its slope (`targets`). With U_S, U_A and
the eigenvalues E of a layer, and Q [O, I] its part of grad m_q, that layer of (F + damping)^-1 grad m_q is
U_S ((U_S^T Q U_A) / (E + damping)) U_A^T. Scores are linear in it: a group's score is that of the mean of its queries'
gradients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import one_hot

from d3m_ray.attribution.ekfac.curvature import (
    Bases,
    Curvature,
    LayerPass,
    batches_of,
    fit_curvature,
    hooked,
    rotated,
    with_bases,
)
from d3m_ray.attribution.ekfac.linear_gradients import where_gradients_are
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.shards import make_shards
from d3m_ray.attribution.targets import target_slopes
from d3m_ray.pool import WorkerPool
from d3m_ray.records import QueryTarget
from d3m_ray.training.batching import TokenizedExamples, put_rows
from d3m_ray.training.budgets import matrices_at_once
from d3m_ray.training.model import margin_slopes, margins_of
from d3m_ray.training.precision import at_least_float32

BLOCK_BYTES = 2**30  # of directions that train examples meet in one pass; each worker holds them
EXAMPLES_AT_ONCE = 16  # train gradients [O, I] that are made and used while they are in a CPU's cache


def score_groups(inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32 scores: how much each train example raises the mean target of each group's queries.

    Raises InputError where `config.modules` names no linear layer.
    """
    groups = [np.flatnonzero(inputs.queries.groups == group) for group in range(inputs.num_groups)]
    return _score(inputs, config, pool, groups)


def score_queries(inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 scores: how much each train example raises the target of each query. Raises as `score_groups`."""
    return _score(inputs, config, pool, list(np.arange(len(inputs.queries))[:, None]))


def _score(
    inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool, targets: Sequence[np.ndarray]
) -> np.ndarray:
    """[N, targets] float32, the mean over the checkpoints; a target is the positions of queries that it averages."""
    total = np.zeros((len(inputs.train), len(targets)))
    for number, checkpoint in enumerate(inputs.checkpoints, start=1):
        of = f"checkpoint {number} of {len(inputs.checkpoints)}"
        curvature = fit_curvature(of, inputs, checkpoint, config, pool)
        total += _score_checkpoint(of, inputs, checkpoint, config, curvature, targets, pool)
    return (total / len(inputs.checkpoints)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class DirectionStep:
    """A pass over queries, whose gradients are solved by the curvature."""

    layers: LayerPass
    bases: Mapping[str, Bases]
    damped: Mapping[str, np.ndarray]
    """By layer [O, I]: E + damping."""
    query_target: QueryTarget


@dataclass(frozen=True, eq=False)
class ProductStep:
    """A pass over train examples, whose gradients meet a block of directions."""

    layers: LayerPass
    directions: Mapping[str, np.ndarray]
    """By layer [K, O * I]."""


def _score_checkpoint(
    of: str,
    inputs: AttributionInputs,
    checkpoint: Checkpoint,
    config: EkfacConfig,
    curvature: Curvature,
    targets: Sequence[np.ndarray],
    pool: WorkerPool,
) -> np.ndarray:
    """[N, targets] scores, a block of targets after another, so that their directions fit in memory."""

    def over(examples: TokenizedExamples) -> LayerPass:
        return LayerPass(checkpoint, examples, config.modules, inputs.precision)

    damped = {name: values + config.damping * values.mean() for name, values in curvature.eigenvalues.items()}
    solving = pool.put(DirectionStep(over(inputs.queries), curvature.bases, damped, inputs.query_target))
    shards = make_shards(inputs.train)
    size = max(1, BLOCK_BYTES // sum(values.nbytes for values in damped.values()))
    blocks = []
    for start in range(0, len(targets), size):
        block = targets[start : start + size]
        solved = list(pool.map(f"ekfac queries, {of}", direction_of_target, solving, block))
        directions = {name: np.stack([each[name] for each in solved]) for name in damped}
        scoring = pool.put(ProductStep(over(inputs.train), directions))
        blocks.append(np.concatenate(list(pool.map(f"ekfac scores, {of}", score_shard, scoring, shards))))
    return np.concatenate(blocks, axis=1)[np.argsort(np.concatenate(shards))]


def direction_of_target(step: DirectionStep, target: np.ndarray) -> dict[str, np.ndarray]:
    """By layer [O * I]: (F + damping)^-1 times the mean gradient of the targets of the queries at these positions."""
    layers, bases = with_bases(step.layers, step.bases)
    totals: dict[str, torch.Tensor] = {}
    for _, batch in batches_of(step.layers, target, layers):
        logits = layers.forward(batch)
        weights = target_slopes(margins_of(logits, batch.labels), step.query_target)
        slopes = weights[:, None] * margin_slopes(logits, batch.labels) / len(target)
        for name, inputs, gradients in rotated(layers.backward(slopes), bases):
            product = at_least_float32(gradients.flatten(0, 1).T @ inputs.flatten(0, 1))
            totals[name] = totals.get(name, 0) + product
    return {
        name: _solve(total, torch.tensor(step.damped[name], device=total.device), *bases[name])
        for name, total in totals.items()
    }


def _solve(
    in_bases: torch.Tensor, damped: torch.Tensor, output_basis: torch.Tensor, input_basis: torch.Tensor
) -> np.ndarray:
    """[O * I]: a gradient [O, I] that is given in the eigenbases, solved, and back in the layer's own coordinates."""
    # Where no train example has a gradient there is no score: zero, as the limit of vanishing damping is.
    solved = torch.where(damped > 0, in_bases / damped, 0).to(output_basis.dtype)
    return at_least_float32(output_basis @ solved @ input_basis.T).flatten().cpu().numpy()


def score_shard(step: ProductStep, positions: np.ndarray) -> np.ndarray:
    """[n, K] products of minus the gradients of the losses of the examples at these positions with the directions."""
    layers, directions = hooked(step.layers, lambda tensor: {name: tensor(d) for name, d in step.directions.items()})
    one_layer = next(iter(step.directions.values()))
    scores = np.zeros((len(positions), len(one_layer)), dtype=one_layer.dtype)
    batches, parts = [], []
    for rows, batch in batches_of(step.layers, positions, layers):
        logits = layers.forward(batch)
        # minus the slope of the cross-entropy over the logits: 1 at the label, less the probabilities
        slopes = one_hot(batch.labels, logits.shape[1]) - logits.softmax(dim=1)
        batches.append(rows)
        parts.append(torch.zeros(len(rows), len(one_layer), dtype=logits.dtype, device=logits.device))
        for name, (inputs, gradients) in layers.backward(slopes).items():
            parts[-1] += _products(inputs, gradients, directions[name])
    put_rows(scores, batches, parts)
    return scores


def _products(inputs: torch.Tensor, gradients: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """[N, K] of a layer: the gradient of each example in a batch times each direction [K, O * I]."""
    inputs, gradients = where_gradients_are(inputs, gradients)
    if inputs.shape[1] == 1:  # g^T D a for each direction D, without the outer products of g and a
        num_outputs, num_inputs = gradients.shape[2], inputs.shape[2]
        by_output = directions.view(-1, num_outputs, num_inputs).transpose(0, 1).flatten(1)
        halves = (gradients.squeeze(1) @ by_output).view(len(inputs), -1, num_inputs)
        return (at_least_float32(halves) * at_least_float32(inputs)).sum(dim=2)
    products = []
    size = matrices_at_once(inputs.device, EXAMPLES_AT_ONCE, directions.shape[1])
    for some_gradients, some_inputs in zip(gradients.split(size), inputs.split(size), strict=True):
        each = torch.bmm(some_gradients.transpose(1, 2), some_inputs)
        products.append(at_least_float32(each.flatten(1) @ directions.T))
    return torch.cat(products)


SCORERS = Scorers(score_groups, score_queries)
