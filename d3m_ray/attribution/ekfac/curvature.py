"""EK-FAC curvature of linear layers: covariances, their eigenbases, and eigenvalues corrected in them.

Shapes: N train examples, n examples of a shard, T tokens, O outputs of a layer, I its inputs with a trailing 1 where it
has a bias. With G_i [O, I] the gradient of example i's loss at a label drawn from the model itself, the layer's Fisher
matrix is approximated (George et al. 2018, arXiv 1806.03884, section 3; Grosse et al. 2023, arXiv 2308.03296, section
2.3) in the eigenbases U_S [O, O] of sum_i,t g_it g_it^T and U_A [I, I] of sum_i,t a_it a_it^T by

    eigenvalues [O, I] = mean_i (U_S^T G_i U_A)^2.
"""

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn.functional import one_hot
from transformers import PreTrainedModel

from d3m_ray.attribution.ekfac.fisher import drawn_labels, uniform_draws
from d3m_ray.attribution.ekfac.layers import tracked_linears
from d3m_ray.attribution.ekfac.linear_gradients import Caught, LinearGradients
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, ScoringPrecision
from d3m_ray.attribution.shards import make_shards
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.pool import WorkerPool
from d3m_ray.training.batching import Batch, TokenizedExamples, budget_batches
from d3m_ray.training.precision import at_least_float32, default_device, product_dtype

GRADIENT_TOKENS = 2048  # padded tokens of a gradient batch: activations of a small model stay in cache
MAX_SHARDS = 32  # each sends back sums as large as the curvature itself

SIDES = ("S", "A")  # output gradients and inputs

Bases = tuple[np.ndarray, np.ndarray]
"""Of a layer: U_S [O, O] and U_A [I, I], eigenvectors in columns; float32, float64 where the precision is."""

Tensors = TypeVar("Tensors")
"""What a pass multiplies by, as tensors: its bases or its directions, by layer; None of a pass that has neither."""


@dataclass(frozen=True, eq=False)
class Curvature:
    """The Fisher matrices of the tracked layers at one checkpoint."""

    bases: Mapping[str, Bases]
    eigenvalues: Mapping[str, np.ndarray]
    """By layer [O, I]."""


@dataclass(frozen=True, eq=False)
class LayerPass:
    """A pass over the tracked layers at one checkpoint: what each of its shards needs, whatever it computes there."""

    checkpoint: Checkpoint
    examples: TokenizedExamples
    modules: tuple[str, ...]
    precision: ScoringPrecision
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Tells what a worker keeps for this pass from what it keeps for another; enters no result."""


@dataclass(frozen=True, eq=False)
class FisherStep:
    """A pass over gradients at drawn labels."""

    layers: LayerPass
    draws: np.ndarray
    """[N] of `fisher.uniform_draws`."""


@dataclass(frozen=True, eq=False)
class SquaresStep:
    """A pass over gradients at drawn labels that squares them in the eigenbases."""

    fisher: FisherStep
    bases: Mapping[str, Bases]


def fit_curvature(
    of: str, inputs: AttributionInputs, checkpoint: Checkpoint, config: EkfacConfig, pool: WorkerPool
) -> Curvature:
    """The curvature at a checkpoint; `of` says for progress which one it is.

    Raises InputError where `config.modules` names no linear layer.
    """

    def fisher() -> FisherStep:
        layers = LayerPass(checkpoint, inputs.train, config.modules, inputs.precision)
        return FisherStep(layers, uniform_draws(len(inputs.train), config.label_seed))

    shards = make_shards(inputs.train, MAX_SHARDS)
    covariances = summed(pool.map(f"ekfac covariances, {of}", covariances_of_shard, pool.put(fisher()), shards))
    names = sorted({name for name, _ in covariances})
    names.sort(key=lambda name: -max(covariances[name, side].size for side in SIDES))  # the longest to solve first
    pairs = [tuple(covariances.pop((name, side)) for side in SIDES) for name in names]
    bases = dict(zip(names, pool.map(f"ekfac eigenbases, {of}", eigenbases_of_layer, None, pairs), strict=True))
    squaring = pool.put(SquaresStep(fisher(), bases))
    squares = summed(pool.map(f"ekfac eigenvalues, {of}", squares_of_shard, squaring, shards))
    return Curvature(bases, {name: total / len(inputs.train) for name, total in squares.items()})


def summed(results: Iterable[Mapping[Any, np.ndarray]]) -> dict[Any, np.ndarray]:
    """The sums of the shards' arrays, key by key, in the order of the shards."""
    totals: dict[Any, np.ndarray] = {}
    for result in results:
        for key, values in result.items():
            if key in totals:
                totals[key] += values
            else:
                totals[key] = values.copy()  # what a worker sent is read-only
    return totals


def covariances_of_shard(step: FisherStep, positions: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """By layer, under "A" the [I, I] sum over unpadded tokens of a a^T, under "S" the [O, O] sum of g g^T."""
    totals: dict[tuple[str, str], torch.Tensor] = {}

    def add(key: tuple[str, str], rows: torch.Tensor) -> None:
        product = at_least_float32(rows.T @ rows)
        totals[key] = totals[key].add_(product) if key in totals else product

    layers, _ = hooked(step.layers, lambda _: None)
    for batch, caught in _at_drawn_labels(step, positions, layers):
        for name, (inputs, gradients) in caught.items():
            add((name, "A"), _text_rows(inputs, batch))
            add((name, "S"), _text_rows(gradients, batch))
    return {key: total.cpu().numpy() for key, total in totals.items()}


def _text_rows(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """[sum of lengths, .] of [N, T, .]: padding left out. A layer behind the pooling sees one row for each example."""
    if values.shape[1] != batch.attention_mask.shape[1]:
        return values.reshape(-1, values.shape[2])
    return values[batch.attention_mask.bool()]


def eigenbases_of_layer(_: None, covariances: Bases) -> Bases:
    """U_S and U_A of a layer's [O, O] and [I, I] covariances: solved in float64, returned in their dtype."""
    output_basis, input_basis = (
        torch.linalg.eigh(torch.tensor(covariance, dtype=torch.float64, device=default_device())).eigenvectors
        for covariance in covariances
    )
    dtype = covariances[0].dtype
    return output_basis.cpu().numpy().astype(dtype), input_basis.cpu().numpy().astype(dtype)


def squares_of_shard(step: SquaresStep, positions: np.ndarray) -> dict[str, np.ndarray]:
    """By layer the [O, I] sum over the examples of (U_S^T G U_A)^2."""
    layers, bases = with_bases(step.fisher.layers, step.bases)
    totals: dict[str, torch.Tensor] = {}
    for _, caught in _at_drawn_labels(step.fisher, positions, layers):
        for name, (inputs, gradients) in caught.items():
            output_basis, input_basis = bases[name]
            for one_gradient, one_input in zip(gradients @ output_basis, inputs @ input_basis, strict=True):
                product = at_least_float32(one_gradient.T @ one_input)  # one example's [O, I] stays in cache
                if name not in totals:
                    totals[name] = torch.zeros_like(product)
                totals[name].addcmul_(product, product)
    return {name: total.cpu().numpy() for name, total in totals.items()}


def _at_drawn_labels(
    step: FisherStep, positions: np.ndarray, layers: LinearGradients
) -> Iterator[tuple[Batch, Caught]]:
    """Batches, and what makes up the gradients of their losses at drawn labels."""
    for rows, batch in batches_of(step.layers, positions, layers):
        probabilities = layers.forward(batch).double().softmax(dim=1)
        drawn = drawn_labels(probabilities.cpu().numpy(), step.draws[positions[rows]])
        # The slope of the cross-entropy over the logits: the probabilities, less 1 at the drawn label.
        yield (
            batch,
            layers.backward(probabilities - one_hot(torch.from_numpy(drawn), probabilities.shape[1]).to(probabilities)),
        )


def batches_of(over: LayerPass, positions: np.ndarray, layers: LinearGradients) -> Iterator[tuple[np.ndarray, Batch]]:
    """The examples at these positions in padded batches, each with the places that its examples have there."""
    for rows in budget_batches(over.examples.lengths[positions], GRADIENT_TOKENS):
        yield rows, over.examples.batch(positions[rows], layers.model.device)


def with_bases(
    over: LayerPass, bases: Mapping[str, Bases]
) -> tuple[LinearGradients, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """`hooked`, with the layers' eigenbases."""
    return hooked(over, lambda tensor: {name: (tensor(u_s), tensor(u_a)) for name, (u_s, u_a) in bases.items()})


def hooked(
    over: LayerPass, multipliers: Callable[[Callable[[np.ndarray], torch.Tensor]], Tensors]
) -> tuple[LinearGradients, Tensors]:
    """The hooked model, and what the pass multiplies by, on the model's device in the dtype in which it multiplies.

    `multipliers` is given the function that takes an array there. The worker keeps both until another pass begins, so
    that arrays as large as the curvature are taken to a device once.
    """

    def prepare(model: PreTrainedModel) -> tuple[LinearGradients, Tensors]:
        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.tensor(array, dtype=product_dtype(model, over.precision), device=model.device)

        linears = tracked_linears(model, over.modules)
        return LinearGradients(model, linears, over.precision), multipliers(tensor)

    return loaded_model(over.checkpoint, f"ekfac-{over.key}", over.precision, prepare)[1]
