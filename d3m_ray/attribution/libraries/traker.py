"""TRAK by the traker library itself: its gradients, projector and score computer, over shards of a worker pool.

Shapes: N train examples, Q query examples, G groups, n examples of a shard, P parameters, d projected dimensions.

Per checkpoint c, with the projected gradients Phi_c [N, d] and phi_c(q) [d] of the margin over sqrt(P), and the
probability p_c [N] of the correct label, the library gives (`TRAKer.finalize_scores`)

    score(i, q) = mean_c[ Phi_c K_c phi_c(q) ]_i * mean_c[ 1 - p_c ]_i

    K_c = (Phi_c^T Phi_c + lambda I)^-1 / (its mean absolute entry)

This is equation 13 of Park et al. 2023 (arXiv 2303.14186) but for the scale of K_c: so scores have no unit, and a
checkpoint enters the mean with a weight of the library's. Each checkpoint has a random projection of its own. Another
target than the margin is what the library differentiates of queries; of train examples it is always the margin.

Arithmetic is float32, whatever precision below float64 is asked for: the library has no bfloat16. Its CUDA kernel
projects in float16. With float64 gradients, projections and products are float64, and K_c is inverted in float32.
"""

import importlib.util
import logging
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy import linalg
from trak.projectors import AbstractProjector, BasicProjector, CudaProjector, ProjectionType
from trak.score_computers import BasicScoreComputer
from trak.utils import get_num_params
from transformers import PreTrainedModel

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, ScoringPrecision
from d3m_ray.attribution.libraries.traker_margin import columns, gradient_computer
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.trak.scores import spanned_by_features
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.errors import InputError
from d3m_ray.pool import WorkerPool
from d3m_ray.records import QueryTarget
from d3m_ray.training.batching import TokenizedExamples, budget_batches
from d3m_ray.training.precision import default_device

GRADIENT_BYTES = 2 << 30  # of a batch's gradients [B, P]; with all else a worker peaks at about 7 GiB
BLOCK_BYTES = 2 << 30  # of the part of the random matrix that is drawn at once
BLOCK_DIMS = 100  # dimensions of that part at most: the library's default
BATCH_TOKENS = 8192  # padded tokens of a batch at most, where a small model would let it grow without end
MAX_SHARDS = 128  # each leaves a Gram matrix
KERNEL_DIMS = 512  # the library's CUDA kernel writes dimensions by as many, also past the end of fewer

ProjectorKind = Literal["kernel", "cuda", "cpu"]
"""The library's CUDA kernel, or its plain projector on a GPU or on the CPU. Each draws other random matrices."""


@dataclass(frozen=True, eq=False)
class TrakerStep:
    """What a shard of gradients needs besides its example positions."""

    checkpoint: Checkpoint
    number: int
    """The library's `model_id`: which of the checkpoints' projections."""
    examples: TokenizedExamples
    config: TrakConfig
    precision: ScoringPrecision
    projector: ProjectorKind
    query_target: QueryTarget = "margin"
    """What the gradients are of; of train examples it is always the margin."""


@dataclass(frozen=True, eq=False)
class TrakerFeatures:
    """Projected gradients [n, d] and 1 - p [n, 1] of a shard, float32, or float64 where the precision is."""

    gradients: np.ndarray
    out_to_loss: np.ndarray


@dataclass(frozen=True, eq=False)
class Targets:
    """What scoring a shard needs: Phi^T Phi [d, d] float64, the ridge, and the targets' features [Q or G, d]."""

    xtx: np.ndarray
    ridge: float
    gradients: np.ndarray


def score_groups(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: the mean over each group's queries of `score_queries`, which raises and warns the same."""
    return _score(inputs, config, pool, group_means=True)


def score_queries(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool) -> np.ndarray:
    """[N, Q] float32 scores of the library: how much each train example raises the target of each query.

    Warns once (RuntimeWarning) where the workers lack the library's CUDA kernel. Raises InputError where there is no
    ridge and the features do not span the projection, or where the workers are of several kinds.
    """
    return _score(inputs, config, pool, group_means=False)


def _score(inputs: AttributionInputs, config: TrakConfig, pool: WorkerPool, group_means: bool) -> np.ndarray:
    [kind] = pool.map("traker projector", projector_of_worker, (config, inputs.precision), [0])
    if kind != "kernel":
        warnings.warn(_cost(inputs, config), RuntimeWarning, stacklevel=3)
    scores, out_to_loss = [], []
    for number, checkpoint in enumerate(inputs.checkpoints):
        of = f"checkpoint {number + 1} of {len(inputs.checkpoints)}"
        step = TrakerStep(checkpoint, number, inputs.queries, config, inputs.precision, kind, inputs.query_target)
        shards = make_batches(inputs.queries, checkpoint, inputs.precision)
        features = pool.map(f"traker queries, {of}", featurize_shard, pool.put(step), shards)
        targets = _in_order([shard.gradients for shard in features], shards)
        if group_means:
            targets = group_scores(targets.T, inputs.queries.groups, inputs.num_groups).T
        step = TrakerStep(checkpoint, number, inputs.train, config, inputs.precision, kind)
        shards = make_batches(inputs.train, checkpoint, inputs.precision)
        kept = pool.map_kept(f"traker gradients, {of}", featurize_shard, pool.put(step), shards)
        xtx = sum(pool.map(f"traker Gram matrix, {of}", xtx_of_shard, None, kept))
        solving = pool.put(Targets(xtx, ridge_of(xtx, config.damping), targets))
        results = list(pool.map(f"traker scores, {of}", score_shard, solving, kept))
        scores.append(_in_order([part for part, _ in results], shards))
        out_to_loss.append(_in_order([part for _, part in results], shards))
    return (np.mean(scores, axis=0) * np.mean(out_to_loss, axis=0)).astype(np.float32)


def _in_order(parts: list[np.ndarray], shards: list[list[np.ndarray]]) -> np.ndarray:
    """[N, ...] the rows of the shards' parts in the order of the examples."""
    positions = np.concatenate([batch for shard in shards for batch in shard])
    return np.concatenate(parts)[np.argsort(positions)]


def _cost(inputs: AttributionInputs, config: TrakConfig) -> str:
    checkpoint = inputs.checkpoints[0]
    num_batches = len(inputs.checkpoints) * sum(
        len(shard)
        for examples in (inputs.train, inputs.queries)
        for shard in make_batches(examples, checkpoint, inputs.precision)
    )
    draws = _num_parameters(checkpoint) * config.projection_dim / 1e9
    return (
        "traker projects without its CUDA kernel (fast_jl, on a GPU) here: it draws its random matrix again for every "
        f"batch, {draws:.3g} billion numbers in each of {num_batches} batches, and a CPU core draws about 0.28 billion "
        "a second. The method trak scores by the same equation without such a matrix."
    )


def projector_of_worker(settings: tuple[TrakConfig, ScoringPrecision], _: int) -> ProjectorKind:
    """How this worker projects. The kernel takes float32 and whole blocks of dimensions only."""
    config, precision = settings
    if default_device().type != "cuda":
        return "cpu"
    takes = precision != "float64" and config.projection_dim % KERNEL_DIMS == 0
    return "kernel" if takes and importlib.util.find_spec("fast_jl") is not None else "cuda"


def make_batches(
    examples: TokenizedExamples, checkpoint: Checkpoint, precision: ScoringPrecision
) -> list[list[np.ndarray]]:
    """Shards, each a list of batches of positions, longest first: every example once, the same for any pool.

    A batch is as large as memory allows: the random matrix is drawn again for each, whatever its size.
    """
    most = max(1, GRADIENT_BYTES // (_num_parameters(checkpoint) * _dtype(precision).itemsize))
    batches = [
        batch[start : start + most]
        for batch in budget_batches(examples.lengths, BATCH_TOKENS)
        for start in range(0, len(batch), most)
    ]
    size = -(-len(batches) // MAX_SHARDS)
    return [batches[start : start + size] for start in range(0, len(batches), size)]


def _num_parameters(checkpoint: Checkpoint) -> int:
    return sum(array.size for array in checkpoint.weights.values())


def _dtype(precision: ScoringPrecision) -> torch.dtype:
    return torch.float64 if precision == "float64" else torch.float32


@torch.no_grad()  # or the library keeps what it would take to derive its gradients once more
def featurize_shard(step: TrakerStep, batches: list[np.ndarray]) -> TrakerFeatures:
    """What `TRAKer.featurize` stores of these examples, in their order."""
    if (kind := projector_of_worker((step.config, step.precision), 0)) != step.projector:
        raise InputError(
            "traker takes workers of one kind, since random numbers differ between CPU and GPU; received one that "
            f"projects by {step.projector} and one by {kind}: give every worker that scores a GPU, or none"
        )
    key = f"traker-{step.config.projection_dim}-{step.config.projection_seed}-{step.number}-{step.query_target}"
    model, (gradients_of, projector) = loaded_model(
        step.checkpoint,
        key,
        step.precision,
        lambda model: (gradient_computer(model, step.query_target), make_projector(model, step)),
    )
    scale = get_num_params(model) ** 0.5  # the library divides by it instead of scaling the random matrix
    gradients, out_to_loss = [], []
    for positions in batches:
        batch = columns(step.examples.batch(positions, model.device))
        projected = projector.project(gradients_of.compute_per_sample_grad(batch), model_id=step.number)
        gradients.append((projected / scale).cpu().numpy())
        out_to_loss.append(gradients_of.compute_loss_grad(batch).cpu().numpy())
    return TrakerFeatures(np.concatenate(gradients), np.concatenate(out_to_loss))


def make_projector(model: PreTrainedModel, step: TrakerStep) -> AbstractProjector:
    """The projector that `TRAKer` chooses on such a device, its random matrix drawn in parts that fit in memory.

    With up to `BLOCK_DIMS` dimensions the plain projector draws its matrix once. `TRAKer.finalize_features` frees it
    and the library cannot draw it again (AttributeError on scoring); here nothing frees it.
    """
    num_parameters = get_num_params(model)
    dim, seed = step.config.projection_dim, step.config.projection_seed
    if step.projector == "kernel":
        return CudaProjector(num_parameters, dim, seed, ProjectionType.rademacher, model.device, max_batch_size=32)
    distribution = ProjectionType.normal if step.projector == "cpu" else ProjectionType.rademacher
    block = min(BLOCK_DIMS, max(1, BLOCK_BYTES // (num_parameters * model.dtype.itemsize)))
    return BasicProjector(
        num_parameters, dim, seed, distribution, model.device, block, model.dtype, model_id=step.number
    )


def xtx_of_shard(_: None, features: TrakerFeatures) -> np.ndarray:
    """[d, d] the library's X^T X of the shard, in float64 so that the sum does not depend on how it was cut."""
    return score_computer(torch.float64).get_xtx(torch.from_numpy(features.gradients.astype(np.float64))).numpy()


def score_shard(targets: Targets, features: TrakerFeatures) -> tuple[np.ndarray, np.ndarray]:
    """[n, Q or G] the library's product X K targets^T, and [n, 1] 1 - p."""
    gradients = torch.from_numpy(features.gradients.copy())
    computer = score_computer(gradients.dtype, targets.ridge)
    solved = computer.get_x_xtx_inv(gradients, torch.from_numpy(targets.xtx.copy()).to(gradients.dtype))
    scores = torch.zeros(len(gradients), len(targets.gradients), dtype=gradients.dtype)
    computer.get_scores(solved, torch.from_numpy(targets.gradients).to(gradients.dtype), accumulator=scores)
    return scores.numpy(), features.out_to_loss


def score_computer(dtype: torch.dtype, ridge: float = 0.0) -> BasicScoreComputer:
    """The library's default one, on the CPU. `BasicSingleBlockScoreComputer` knows no ridge, so `TRAKer` refuses it."""
    return BasicScoreComputer(dtype, "cpu", logging_level=logging.WARNING, lambda_reg=ridge)


def ridge_of(xtx: np.ndarray, damping: float) -> float:
    """The library's `lambda_reg`, absolute, from `TrakConfig.damping`, which is in means of nonzero eigenvalues.

    Raises InputError where the matrix is singular and the damping 0: the library inverts it as it is.
    """
    eigenvalues = linalg.eigvalsh(xtx)
    spanned = spanned_by_features(eigenvalues)
    if damping == 0 and not spanned.all():
        raise InputError(
            f"--trak-damping is above 0 for traker where train examples span fewer than --projection-dim {len(xtx)} "
            f"dimensions, received 0 with {spanned.sum()}: give a damping or project to fewer"
        )
    return float(damping * eigenvalues[spanned].mean())


SCORERS = Scorers(score_groups, score_queries)
