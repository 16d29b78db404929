"""EK-FAC influence by the kronfluence library itself, cut into the library's own data partitions over a worker pool.

Shapes: N train examples, Q query examples, G groups, I inputs of a linear layer and one for its bias, O its outputs.

Influence functions with the eigenvalue-corrected Kronecker-factored Fisher matrix F_l of each linear layer l (Grosse
et al. 2023, arXiv 2308.03296, section 3; George et al. 2018, arXiv 1806.03884), over checkpoints c:

    score(i, q) = mean_c[ sum_l grad_l(-m_q)^T (F_l + damping mean(eigenvalues of F_l))^-1 grad_l(L_i) ]

with the margin m_q, or another target in its place, and the cross-entropy L_i: more weight on example i moves the
parameters by -(F + ...)^-1 grad L_i. This is the library's pairwise score for the measurement -m_q, with its own sign.
The labels of the Fisher matrix are drawn beforehand (`ekfac.fisher`), so that neither partitions nor batches
change them. Gradients and factors are float64 where the precision is, and float32 otherwise.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from kronfluence.utils.constants import LAMBDA_MATRIX_NAME, NUM_LAMBDA_PROCESSED
from kronfluence.utils.dataset import make_indices_partition
from scipy.special import softmax

from d3m_ray.attribution.ekfac.fisher import drawn_labels, uniform_draws
from d3m_ray.attribution.ekfac.layers import LIBRARY_LAYERS, tracked_linears
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.forward import forward_pass, logits_of_shard
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries.kronfluence_margin import BATCH_EXAMPLES, SortedExamples
from d3m_ray.attribution.libraries.kronfluence_steps import (
    Factors,
    FactorStep,
    ScoreStep,
    decompose_layer,
    fit_covariances,
    fit_lambdas,
    score_partition,
)
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.shards import make_shards
from d3m_ray.keys import content_hash
from d3m_ray.pool import WorkerPool
from d3m_ray.training.model import build_classifier

MAX_PARTITIONS = 32  # each leaves factors of about twice the size of the layers
QUERY_BATCH_BYTES = 1 << 30  # of the gradients, over all layers, of the queries that one pass over train scores
QUERY_BATCHES = 4  # of a step that scores single queries: writing and reading the factors is small beside them
TRAIN_PER_QUERY_TOKENS = 4  # of a scoring step at least: every step takes the gradients of its queries again


def score_groups(inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32 scores: how much each train example raises the mean target of each group's queries.

    The library sums the gradients of a group's queries (`aggregate_query_gradients`), then solves and multiplies once:
    G passes over the train examples, where a pairwise matrix takes one for every few queries. Scores are linear in the
    query's gradient, so this is the mean of `score_queries` over the group. Raises InputError where `config.modules`
    names no linear layer.
    """
    groups = inputs.queries.groups
    sums = _score(inputs, config, pool, [np.flatnonzero(groups == group) for group in range(inputs.num_groups)])
    return (sums / np.bincount(groups, minlength=inputs.num_groups)).astype(np.float32)


def score_queries(inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 scores: how much each train example raises the target of each query.

    Raises InputError where `config.modules` names no linear layer.
    """
    return _score(inputs, config, pool, None).astype(np.float32)


def _score(
    inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool, groups: Sequence[np.ndarray] | None
) -> np.ndarray:
    """[N, G] float64 scores for the sum over each group's queries, or [N, Q] for each query; mean over checkpoints."""
    scores = []
    for number, checkpoint in enumerate(inputs.checkpoints, start=1):
        of = f"checkpoint {number} of {len(inputs.checkpoints)}"
        begun = _begin(inputs, config, pool, checkpoint, of)
        fitted = _fit_factors(begun, config.damping, pool, of)
        scores.append(_score_checkpoint(fitted, inputs, groups, pool, of))
    return np.mean(scores, axis=0)


def _begin(
    inputs: AttributionInputs, config: EkfacConfig, pool: WorkerPool, checkpoint: Checkpoint, of: str
) -> FactorStep:
    """A checkpoint's task before any factor: its layers, and the train examples with labels for the Fisher matrix."""
    with torch.device("meta"):  # names alone
        layers = tracked_linears(build_classifier(checkpoint.pretrained, "meta"), config.modules, LIBRARY_LAYERS)
    logits = forward_pass(f"kronfluence labels, {of}", logits_of_shard, inputs, checkpoint, inputs.train, pool)
    drawn = drawn_labels(softmax(logits, axis=1), uniform_draws(len(inputs.train), config.label_seed))
    settings = {"precision": inputs.precision, "layers": layers, "damping": config.damping}
    contents = (inputs.train.flat_ids, inputs.train.offsets, inputs.train.labels, drawn)
    return FactorStep(
        name=content_hash(checkpoint.key, settings, *(content.tobytes() for content in contents)),
        checkpoint=checkpoint,
        layers=tuple(layers),
        precision=inputs.precision,
        train=SortedExamples(inputs.train, drawn),
        num_partitions=min(MAX_PARTITIONS, len(make_shards(inputs.train))),
        factors={},
    )


def _fit_factors(task: FactorStep, damping: float, pool: WorkerPool, of: str) -> FactorStep:
    """The task with eigenvectors and damped Lambda matrices."""
    partitions = range(task.num_partitions)
    covariances = _sum_factors(pool.map(f"kronfluence covariances, {of}", fit_covariances, pool.put(task), partitions))
    by_layer = [{name: {layer: covariances[name][layer]} for name in covariances} for layer in task.layers]
    eigen = _join_layers(pool.map(f"kronfluence eigenvectors, {of}", decompose_layer, None, by_layer))
    task = dataclasses.replace(task, factors=eigen)
    lambdas = _sum_factors(pool.map(f"kronfluence Lambda, {of}", fit_lambdas, pool.put(task), partitions))
    return dataclasses.replace(task, factors=eigen | _damped(lambdas, damping))


def _sum_factors(parts: Iterable[Factors]) -> Factors:
    """The sum over partitions, added in the order in which the library's own aggregation adds its files."""
    total: Factors = {}
    for part in parts:
        for name, matrices in part.items():
            sums = total.setdefault(name, {})
            for layer, matrix in matrices.items():
                sums[layer] = sums[layer] + matrix if layer in sums else matrix
    return total


def _join_layers(parts: Iterable[Factors]) -> Factors:
    """The factors of all layers, from those of one layer each."""
    joined: Factors = {}
    for part in parts:
        for name, matrices in part.items():
            joined.setdefault(name, {}).update(matrices)
    return joined


def _damped(lambdas: Factors, damping: float) -> Factors:
    """Mean squared gradients in the eigenbasis, [O, I] float64, and on them the damping, in means of them.

    The library adds either a number of its own to every layer's, or exactly a tenth of each layer's mean. Any other
    part of the mean is exact where the matrices already hold it and the library adds zero.
    """
    damped = {}
    for layer, sums in lambdas[LAMBDA_MATRIX_NAME].items():
        means = sums.astype(np.float64) / lambdas[NUM_LAMBDA_PROCESSED][layer]
        damped[layer] = means + damping * means.mean()
    return {LAMBDA_MATRIX_NAME: damped, NUM_LAMBDA_PROCESSED: {layer: np.ones(1, dtype=np.int64) for layer in damped}}


def _score_checkpoint(
    fitted: FactorStep,
    inputs: AttributionInputs,
    groups: Sequence[np.ndarray] | None,
    pool: WorkerPool,
    of: str,
) -> np.ndarray:
    """[N, G] scores for the sum over each group's queries, or [N, Q] for each query."""
    queries = SortedExamples(inputs.queries, inputs.queries.labels)
    query_batch = _query_batch(fitted)
    blocks = _blocks(queries, groups, QUERY_BATCHES * query_batch)
    num_partitions = _num_scored(fitted, max(int(queries.examples.lengths[block.places].sum()) for block in blocks))
    of_step = query_batch if groups is None else None
    task = pool.put(ScoreStep(fitted, queries, num_partitions, of_step, inputs.query_target))
    steps = [(block, partition) for block in blocks for partition in range(num_partitions)]
    places, partitions = [block.places for block, _ in steps], [partition for _, partition in steps]
    parts = pool.map(f"kronfluence scores, {of}", score_partition, task, places, partitions)
    num_columns = len(queries) if groups is None else len(groups)
    scores = np.empty(
        (len(fitted.train), num_columns), dtype=np.float64 if inputs.precision == "float64" else np.float32
    )
    bounds = make_indices_partition(len(fitted.train), num_partitions)
    for (block, partition), part in zip(steps, parts, strict=True):
        rows = fitted.train.order[slice(*bounds[partition])]
        scores[np.ix_(rows, block.columns)] = part.T
    return scores


@dataclass(frozen=True, eq=False)
class _Block:
    """Queries that one pass over a partition of train scores."""

    places: np.ndarray
    """Where they stand among the sorted queries."""
    columns: np.ndarray
    """Of the scores that they give."""


def _blocks(queries: SortedExamples, groups: Sequence[np.ndarray] | None, num_queries: int) -> list[_Block]:
    """Each group as one column; or single queries, so many at once, under the positions that they came in."""
    if groups is not None:
        return [
            _Block(np.flatnonzero(np.isin(queries.order, group)), np.array([column]))
            for column, group in enumerate(groups)
        ]
    starts = range(num_queries, len(queries), num_queries)
    return [_Block(places, queries.order[places]) for places in np.split(np.arange(len(queries)), starts)]


def _num_scored(fitted: FactorStep, query_tokens: int) -> int:
    """Partitions to score: those of the factors, or fewer, so that the queries are little work beside each."""
    train_tokens = int(fitted.train.examples.lengths.sum())
    return max(1, min(fitted.num_partitions, train_tokens // (TRAIN_PER_QUERY_TOKENS * query_tokens)))


def _query_batch(fitted: FactorStep) -> int:
    """Queries whose gradients, over all layers, keep to `QUERY_BATCH_BYTES`."""
    num_entries = sum(matrix.size for matrix in fitted.factors[LAMBDA_MATRIX_NAME].values())
    return max(1, min(BATCH_EXAMPLES, QUERY_BATCH_BYTES // (num_entries * fitted.dtype.itemsize)))


SCORERS = Scorers(score_groups, score_queries)
