"""Whether a method can serve a model: its own gradient step, tried on two short texts, against plain backward passes.

A method reads gradients through hooks, functional calls or a library's wrappers. Where an architecture computes in
another way than these expect, scores would be wrong without a word; so each is compared with what autograd gives.
Shapes: O outputs of a layer, I its inputs.
"""

import copy
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from d3m_ray.attribution.ekfac.layers import LIBRARY_LAYERS, LINEAR_LAYERS, share_of_parameters, tracked_linears
from d3m_ray.attribution.ekfac.linear_gradients import LinearGradients
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.head_states import HeadStates
from d3m_ray.attribution.metagradient.differentials import BatchGradient, losses_along
from d3m_ray.attribution.metagradient.replay import joined
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.errors import InputError
from d3m_ray.training.batching import Batch, TokenizedExamples
from d3m_ray.training.fine_tuning import parameters_with_gradients
from d3m_ray.training.model import build_classifier, load_weights, logits_of, margin_slopes, margins_of
from d3m_ray.training.pretrained import PretrainedModel

ROUNDING = 2e-4  # of the largest entry: two float32 backward passes agree to a tenth of it
TRIED_DIM = 16  # of the projection
JUDGED = 1  # the place of the shorter of the two examples
SMALL_MOVE = 3e-3  # of the weights, whose differences of gradients are held against second derivatives, in float64
DIFFERENCING = 5e-3  # of the largest entry: norms that compute in float32 whatever the model leave a tenth of it
Gradients = Mapping[str, torch.Tensor]
"""Of one example's margin, by parameter; zero where it does not depend on one."""


@dataclass(frozen=True, eq=False)
class Trying:
    """A pretrained model, and the examples that methods are tried on."""

    pretrained: PretrainedModel
    examples: TokenizedExamples
    ekfac: EkfacConfig

    @cached_property
    def _untouched(self) -> PreTrainedModel:
        model = build_classifier(self.pretrained).eval()
        load_weights(model, self.pretrained.weights)
        return model

    def model(self) -> PreTrainedModel:
        """A new one with the pretrained weights, on the CPU and in evaluation mode, which hooks may change."""
        return copy.deepcopy(self._untouched)  # far quicker than building one again

    def padded(self) -> Batch:
        """Both examples: the shorter one, at place `JUDGED`, with padding."""
        return self.examples.batch(np.arange(len(self.examples)))

    def judged(self) -> Batch:
        """The shorter example alone."""
        return self.examples.batch(np.array([JUDGED]))

    @cached_property
    def gradients(self) -> Gradients:
        """Of the shorter example alone, by a plain backward pass."""
        model, batch = self.model(), self.judged()
        margins_of(logits_of(model, batch), batch.labels).sum().backward()
        return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}


def reasons_against(
    methods: Iterable[str], pretrained: PretrainedModel, train: TokenizedExamples, ekfac: EkfacConfig
) -> dict[str, str]:
    """By method that cannot serve the model, why, in one line. Takes seconds, on the CPU, whatever the corpus."""
    trying = Trying(pretrained, _short(train), ekfac)
    reasons = {}
    for method in methods:
        try:
            _CHECKS.get(method, _needs_nothing)(trying)
        except Exception as error:  # a library's or an architecture's own, whatever it is: the reason is what counts
            told = str(error) if isinstance(error, ValueError | InputError) else f"{type(error).__name__}: {error}"
            reasons[method] = textwrap.shorten(told, 300, placeholder=" ...")
    return reasons


def coverage(method: str, pretrained: PretrainedModel, ekfac: EkfacConfig) -> float | None:
    """The share of the model's parameters whose gradients a method reads; None where it reads no gradient."""
    if method in ("trak", "traker", "gradcos", "metagradient", "tracin"):
        return 1.0  # or it refuses the model
    if method not in ("ekfac", "kronfluence"):
        return None
    with torch.device("meta"):  # names and sizes alone
        model = build_classifier(pretrained, "meta")
    return share_of_parameters(model, tracked_linears(model, ekfac.modules, _KINDS[method]))


def _short(train: TokenizedExamples) -> TokenizedExamples:
    """The shortest train example and the shortest that is longer, so that a batch of them has padding."""
    order = np.argsort(train.lengths, kind="stable")
    longer = order[train.lengths[order] > train.lengths[order[0]]]
    return train.take(np.array([longer[0] if len(longer) else order[-1], order[0]]))


def _needs_nothing(trying: Trying) -> None:
    """The method makes no gradient: whatever classifies, serves."""


def _try_trak(trying: Trying) -> None:
    gradients_of = ProjectedGradients(trying.model(), SignProjection(TRIED_DIM, 0))
    features, _ = gradients_of(trying.padded())
    expected = gradients_of.projected(trying.gradients)
    _compare(features[JUDGED], expected, "projected gradients", float(expected.abs().max()))


def _try_linears(trying: Trying, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    model, gradients = trying.model(), trying.gradients
    names = tracked_linears(model, trying.ekfac.modules, kinds)
    layers = LinearGradients(model, names, "float32")
    logits = layers.forward(trying.padded())
    caught = layers.backward(margin_slopes(logits, trying.padded().labels))
    largest = _largest(gradients)
    for name in names:
        layer = model.get_submodule(name)
        if f"{name}.weight" not in gradients:
            raise ValueError(f"EK-FAC takes layers with weights of their own, and {name} shares its with another")
        weight = gradients[f"{name}.weight"]
        expected = [weight if type(layer) is nn.Linear else weight.T]
        if layer.bias is not None:
            expected.append(gradients[f"{name}.bias"][:, None])
        found = torch.zeros(len(expected[0]), sum(part.shape[1] for part in expected))
        if name in caught:
            inputs, slopes = caught[name]
            found = slopes[JUDGED].T @ inputs[JUDGED]
        _compare(found, torch.cat(expected, dim=1), f"gradients of {name}", largest)
    return names


def _try_metagradient(trying: Trying) -> None:
    model, parameters, direction = _doubled(trying)

    def gradient(moved: float) -> BatchGradient:
        with torch.no_grad():
            for parameter, along in zip(parameters, direction, strict=True):
                parameter.add_(along, alpha=moved)
        return BatchGradient(parameters, lambda: _losses(model, trying.padded()))

    found, _ = gradient(0).pull(direction)
    ahead, behind = (joined(gradient(moved).gradients) for moved in (SMALL_MOVE, -2 * SMALL_MOVE))
    expected = (ahead - behind) / (2 * SMALL_MOVE)
    _compare(joined(found), expected, "second derivatives", float(expected.abs().max()), DIFFERENCING)


def _try_tracin(trying: Trying) -> None:
    model, parameters, direction = _doubled(trying)
    found = losses_along(model, parameters, direction, lambda moved: _losses(moved, trying.padded()))[JUDGED]
    gradients = torch.autograd.grad(_losses(model, trying.padded())[JUDGED], parameters)
    expected = joined(gradients) @ joined(direction)
    _compare(found, expected, "derivatives along a direction", float(expected.abs()))


def _doubled(trying: Trying) -> tuple[PreTrainedModel, list[nn.Parameter], list[torch.Tensor]]:
    """The model in float64, its parameters that logits depend on, and a direction of length 1 in their shapes."""
    model = trying.model().double()
    parameters = parameters_with_gradients(model, trying.examples)
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    length = float(joined(drawn).norm())
    return model, parameters, [part / length for part in drawn]


def _losses(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return nn.functional.cross_entropy(logits_of(model, batch), batch.labels, reduction="none")


def _try_kronfluence(trying: Trying) -> None:
    from kronfluence.analyzer import prepare_model  # a library is loaded by what asks for it

    from d3m_ray.attribution.libraries.kronfluence_margin import MarginTask

    names = _try_linears(trying, _KINDS["kronfluence"])  # what the library's own hooks see
    model, batch = prepare_model(trying.model(), MarginTask(names)), trying.padded()
    margins_of(logits_of(model, batch), batch.labels).sum().backward()


def _try_traker(trying: Trying) -> None:
    from d3m_ray.attribution.libraries.traker_margin import columns, gradient_computer

    computer, largest = gradient_computer(trying.model()), _largest(trying.gradients)
    try:
        with torch.no_grad():
            found = computer.compute_per_sample_grad(columns(trying.judged()))
    except RuntimeError as error:
        told = str(error).partition(". ")[0].removeprefix("vmap: ")
        raise ValueError(f"the library differentiates by torch's vmap, which cannot follow it: {told}") from error
    for name, expected in trying.gradients.items():
        _compare(found[name][0], expected, f"gradients of {name}", largest)


def _try_embedding(trying: Trying) -> None:
    HeadStates(trying.model())(trying.padded())


def _largest(gradients: Gradients) -> float:
    return max(float(gradient.abs().max()) for gradient in gradients.values())


def _compare(
    found: torch.Tensor, expected: torch.Tensor, what: str, largest_of_all: float, rounding: float = ROUNDING
) -> None:
    """Raises ValueError where they differ by more than rounding, of themselves or of what the example has elsewhere.

    Some gradients are zero but for rounding, as those of the biases of keys.
    """
    apart = float((found - expected).abs().max())
    largest = max(float(expected.abs().max()), largest_of_all / 100)
    if not apart <= rounding * largest:
        raise ValueError(f"its {what} are not those of a plain backward pass, by {apart:.2g} of {largest:.2g}")


_KINDS: Mapping[str, tuple[type[nn.Module], ...]] = {"ekfac": LINEAR_LAYERS, "kronfluence": LIBRARY_LAYERS}
_CHECKS: Mapping[str, Callable[[Trying], object]] = {
    "trak": _try_trak,
    "ekfac": lambda trying: _try_linears(trying, _KINDS["ekfac"]),
    "traker": _try_traker,
    "kronfluence": _try_kronfluence,
    "embedding": _try_embedding,
    "metagradient": _try_metagradient,
    "tracin": _try_tracin,
    "gradcos": _try_trak,
}
