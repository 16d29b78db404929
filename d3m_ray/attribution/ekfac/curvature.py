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
from d3m_ray.attribution.ekfac.linear_gradients import Caught, LinearGradients, where_gradients_are
from d3m_ray.attribution.ekfac.second_moment import SecondMoment
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, ScoringPrecision
from d3m_ray.attribution.shards import gradient_batches, make_shards
from d3m_ray.attribution.worker import loaded_model
from d3m_ray.pool import WorkerPool
from d3m_ray.training.batching import Batch, TokenizedExamples, on_device
from d3m_ray.training.budgets import matrices_at_once, memory_of
from d3m_ray.training.precision import at_least_float32, default_device, product_dtype

MAX_SHARDS = 32  # each sends back sums as large as the curvature itself

Moment = tuple[str, tuple[str, ...]]
"""What an uncentred covariance is of: "S" and a layer, its output gradients; "A" and the layers that read one input."""
Moments = tuple[Moment, ...]

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
    moments = summed(pool.map(f"ekfac covariances, {of}", covariances_of_shard, pool.put(fisher()), shards))
    sides = _sides_of_layers(moments)
    to_solve = sorted({parts for both in sides.values() for parts in both})
    to_solve.sort(key=lambda parts: -moments[parts[0]].size)  # the longest to solve first
    covariances = [sum(moments[part] for part in parts) for parts in to_solve]
    moments.clear()
    solved = dict(zip(to_solve, pool.map(f"ekfac eigenbases, {of}", eigenbasis, None, covariances), strict=True))
    bases = {name: (solved[of_outputs], solved[of_inputs]) for name, (of_outputs, of_inputs) in sides.items()}
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


def _sides_of_layers(moments: Mapping[Moment, np.ndarray]) -> dict[str, tuple[Moments, Moments]]:
    """By layer the moments that its covariances S and A are the sums of; layers of one input have those of A in common.

    There is one of A, unless layers read one input in some batches only.
    """
    layers = [layer for side, (layer, *_) in moments if side == "S"]
    return {
        layer: (
            (("S", (layer,)),),
            tuple((side, readers) for side, readers in moments if side == "A" and layer in readers),
        )
        for layer in layers
    }


def covariances_of_shard(step: FisherStep, positions: np.ndarray) -> dict[Moment, np.ndarray]:
    """Of each layer's output gradients the [O, O] sum of g g^T, of each input the [I, I] sum of a a^T, over tokens."""
    totals: dict[Moment, SecondMoment] = {}
    layers, _ = hooked(step.layers, lambda _: None)
    for batch, caught in _at_drawn_labels(step, positions, layers):
        readers: dict[int, list[str]] = {}
        for name, (inputs, gradients) in caught.items():
            readers.setdefault(id(inputs), []).append(name)
            rows = _text_rows(gradients, batch)[None]
            totals.setdefault(("S", (name,)), SecondMoment()).add(where_gradients_are(rows, rows)[1].flatten(0, 1))
        for names in readers.values():
            totals.setdefault(("A", tuple(names)), SecondMoment()).add(_text_rows(caught[names[0]][0], batch))
    return {key: total.matrix().cpu().numpy() for key, total in totals.items()}


def _text_rows(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """[sum of lengths, .] of [N, T, .]: padding left out. A layer behind the pooling sees one row for each example."""
    if values.shape[1] != batch.attention_mask.shape[1]:
        return values.reshape(-1, values.shape[2])
    if memory_of(values.device) is not None:
        # Zeros add nothing to a sum of squares, and a GPU is waited for to count what is left out.
        return (values * batch.attention_mask[:, :, None]).flatten(0, 1)
    return values[batch.attention_mask.bool()]


def eigenbasis(_: None, covariance: np.ndarray) -> np.ndarray:
    """The eigenvectors, in columns, of a covariance: solved in float64, returned in its dtype."""
    wide = torch.tensor(covariance, dtype=torch.float64, device=default_device())
    basis: np.ndarray = torch.linalg.eigh(wide).eigenvectors.cpu().numpy().astype(covariance.dtype)
    return basis


def squares_of_shard(step: SquaresStep, positions: np.ndarray) -> dict[str, np.ndarray]:
    """By layer the [O, I] sum over the examples of (U_S^T G U_A)^2."""
    layers, bases = with_bases(step.fisher.layers, step.bases)
    totals: dict[str, torch.Tensor] = {}
    for _, caught in _at_drawn_labels(step.fisher, positions, layers):
        for name, inputs, gradients in rotated(caught, bases):
            if name not in totals:
                shape = gradients.shape[2], inputs.shape[2]
                totals[name] = torch.zeros(
                    shape, dtype=torch.promote_types(inputs.dtype, torch.float32), device=inputs.device
                )
            _add_squares(totals[name], inputs, gradients)
    return {name: total.cpu().numpy() for name, total in totals.items()}


def _add_squares(total: torch.Tensor, inputs: torch.Tensor, gradients: torch.Tensor) -> None:
    """Add to [O, I] the squares of each example's sum_t gradients_t inputs_t^T, from [N, T, O] and [N, T, I]."""
    if inputs.shape[1] == 1:  # squared term by term: one product sums over the examples
        squares = [values.squeeze(1).to(total.dtype).square_() for values in (gradients, inputs)]
        total.addmm_(squares[0].T, squares[1])
        return
    size = matrices_at_once(total.device, 1, total.numel())
    if size > 1:
        for some_gradients, some_inputs in zip(gradients.split(size), inputs.split(size), strict=True):
            products = at_least_float32(torch.bmm(some_gradients.transpose(1, 2), some_inputs))
            total.add_(products.square_().sum(dim=0))
        return
    for one_gradient, one_input in zip(gradients, inputs, strict=True):
        product = at_least_float32(one_gradient.T @ one_input)  # one example's [O, I] stays in a CPU's cache
        total.addcmul_(product, product)


def rotated(
    caught: Caught, bases: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """By layer its inputs [N, T, I] and output gradients [N, T, O] in the eigenbases; an input of several layers once.

    Tokens without gradients may be missing.
    """
    last: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None  # inputs, their basis, and one times the other
    for name, (inputs, gradients) in caught.items():
        output_basis, input_basis = bases[name]
        some_inputs, some_gradients = where_gradients_are(inputs, gradients)
        if some_inputs is not inputs:
            yield name, some_inputs @ input_basis, some_gradients @ output_basis
            continue
        if last is None or last[0] is not inputs or last[1] is not input_basis:
            last = inputs, input_basis, inputs @ input_basis
        yield name, last[2], gradients @ output_basis


def _at_drawn_labels(
    step: FisherStep, positions: np.ndarray, layers: LinearGradients
) -> Iterator[tuple[Batch, Caught]]:
    """Batches, and what makes up the gradients of their losses at drawn labels."""
    for rows, batch in batches_of(step.layers, positions, layers):
        probabilities = layers.forward(batch).double().softmax(dim=1)
        drawn = drawn_labels(probabilities, on_device(step.draws[positions[rows]], probabilities.device))
        # The slope of the cross-entropy over the logits: the probabilities, less 1 at the drawn label.
        yield batch, layers.backward(probabilities - one_hot(drawn, probabilities.shape[1]).to(probabilities))


def batches_of(over: LayerPass, positions: np.ndarray, layers: LinearGradients) -> Iterator[tuple[np.ndarray, Batch]]:
    """The examples at these positions in padded batches, each with the places that its examples have there."""
    for rows in gradient_batches(over.examples.lengths[positions], layers.model):
        yield rows, over.examples.batch(positions[rows], layers.model.device)


def with_bases(
    over: LayerPass, bases: Mapping[str, Bases]
) -> tuple[LinearGradients, dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """`hooked`, with the layers' eigenbases; one that layers have in common is one tensor."""

    def on_device(tensor: Callable[[np.ndarray], torch.Tensor]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        tensors = {id(basis): tensor(basis) for both in bases.values() for basis in both}
        return {name: (tensors[id(u_s)], tensors[id(u_a)]) for name, (u_s, u_a) in bases.items()}

    return hooked(over, on_device)


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
