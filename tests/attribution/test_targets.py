"""Targets: slopes against autograd, scores of each method against the gradient of the target itself in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.nn.functional import cross_entropy

from d3m_ray.attribution import forward
from d3m_ray.attribution.ekfac.curvature import fit_curvature
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.targets import target_slopes, target_values
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.records import QueryTarget
from d3m_ray.training.model import build_classifier, load_weights, logits_of, margins_of

OTHERS: tuple[QueryTarget, ...] = ("loss", "probability")
TRAK = TrakConfig(projection_dim=16)
EKFAC = EkfacConfig()
MARGINS = torch.tensor([-800.0, -30.0, -2.0, 0.0, 0.5, 3.0, 30.0, 800.0], dtype=torch.float64)


def _of_definition(logits: torch.Tensor, labels: torch.Tensor, target: QueryTarget) -> torch.Tensor:
    """[B] the target from the logits, without the margin."""
    if target == "loss":
        return -cross_entropy(logits, labels, reduction="none")
    return logits.softmax(dim=1).gather(1, labels[:, None]).squeeze(1)


@pytest.fixture
def made_inputs(tiny_base, made_tokens):
    def make(num_labels: int = 2, num_checkpoints: int = 2) -> AttributionInputs:
        checkpoints = []
        for seed in range(num_checkpoints):
            pretrained = tiny_base("bert", seed=seed, num_labels=num_labels)
            weights = pretrained.weights | {
                "classifier.weight": pretrained.weights["classifier.weight"] * 40
            }  # unlike margins
            checkpoints.append(Checkpoint(f"targets {num_labels}-{seed}", pretrained, weights))
        examples = {"num_groups": 3, "num_labels": num_labels}
        train, queries = made_tokens("train", 40, **examples), made_tokens("val", 9, **examples)
        return AttributionInputs(tuple(checkpoints), train, queries, 3, "float64")

    return make


def _model(checkpoint: Checkpoint):
    model = build_classifier(checkpoint.pretrained).double().eval()
    load_weights(model, checkpoint.weights)
    return model


def _gradients(checkpoint: Checkpoint, queries, target: QueryTarget) -> list[dict[str, torch.Tensor]]:
    """Of each query's target, by an ordinary backward pass of it alone."""
    model, found = _model(checkpoint), []
    for index in range(len(queries)):
        batch = queries.batch(np.array([index]))
        model.zero_grad()
        _of_definition(logits_of(model, batch), batch.labels, target).sum().backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return found


def _trak_by_hand(inputs: AttributionInputs, target: QueryTarget) -> np.ndarray:
    """[N, Q] by equation 13 of the paper, with an explicit inverse, the queries' features projected from gradients."""
    scores, slopes = [], []
    for checkpoint in inputs.checkpoints:
        gradients_of = ProjectedGradients(_model(checkpoint), SignProjection(TRAK.projection_dim, 0))
        train, margins = gradients_of(inputs.train.batch(np.arange(len(inputs.train))))
        features = [gradients_of.projected(each).numpy() for each in _gradients(checkpoint, inputs.queries, target)]
        gram = train.numpy().T @ train.numpy()
        gram += TRAK.damping * np.trace(gram) / len(gram) * np.eye(len(gram))
        scores.append(train.numpy() @ np.linalg.inv(gram) @ np.stack(features).T)
        slopes.append(expit(-margins.numpy()))
    return np.mean(scores, axis=0) * np.mean(slopes, axis=0)[:, None]


def _ekfac_by_hand(inputs: AttributionInputs, target: QueryTarget) -> np.ndarray:
    """[N, Q] with the engine's curvature, which targets leave alone, and gradients one example at a time."""
    total = np.zeros((len(inputs.train), len(inputs.queries)))
    for checkpoint in inputs.checkpoints:
        curvature = fit_curvature("", inputs, checkpoint, EKFAC, LocalPool())
        of_train = _gradients(checkpoint, inputs.train, "loss")
        of_queries = _gradients(checkpoint, inputs.queries, target)
        for name, (output_basis, input_basis) in curvature.bases.items():

            def matrix(gradients: dict[str, torch.Tensor], name: str = name) -> np.ndarray:
                return torch.cat([gradients[f"{name}.weight"], gradients[f"{name}.bias"][:, None]], dim=1).numpy()

            damped = curvature.eigenvalues[name] + EKFAC.damping * curvature.eigenvalues[name].mean()
            train = np.stack([matrix(gradients) for gradients in of_train])
            for q, gradients in enumerate(of_queries):
                solved = (output_basis.T @ matrix(gradients) @ input_basis) / damped
                total[:, q] += np.einsum("noi,oi->n", train, output_basis @ solved @ input_basis.T)
    return total / len(inputs.checkpoints)


@pytest.mark.parametrize("target", ["margin", *OTHERS])
def test_slopes_are_the_derivatives_of_the_values(target):
    margins = MARGINS.clone().requires_grad_()
    target_values(margins, target).sum().backward()
    slopes = target_slopes(MARGINS, target)
    torch.testing.assert_close(slopes, margins.grad, rtol=1e-9, atol=1e-15)
    assert (slopes[1:-1] > 0).all(), "nothing rounds to zero where float64 has a number"
    assert slopes.dtype == torch.float64


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("target", OTHERS)
def test_values_are_minus_the_loss_and_the_probability_of_the_true_label(target, num_labels):
    logits = torch.randn(50, num_labels, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 5
    labels = torch.arange(50) % num_labels
    found = target_values(margins_of(logits, labels), target)
    torch.testing.assert_close(found, _of_definition(logits, labels, target), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("target", OTHERS)
@pytest.mark.parametrize(
    ("method", "config", "by_hand"), [("trak", TRAK, _trak_by_hand), ("ekfac", EKFAC, _ekfac_by_hand)]
)
def test_scores_are_those_of_the_gradient_of_the_target(made_inputs, method, config, by_hand, target, num_labels):
    """Each query alone, and the mean over a group's queries, over two checkpoints."""
    inputs = dataclasses.replace(made_inputs(num_labels), query_target=target)
    expected = by_hand(inputs, target)
    scale = np.abs(expected).max()
    found = METHODS[method].load().score_queries(inputs, config, LocalPool())
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * scale)
    of_groups = group_scores(expected, inputs.queries.groups, 3)
    found = METHODS[method].load().score_groups(inputs, config, LocalPool())
    np.testing.assert_allclose(found, of_groups, rtol=0, atol=2e-6 * scale)


def _slopes(inputs: AttributionInputs, target: QueryTarget) -> np.ndarray:
    """[checkpoints, Q] 1 - p or p (1 - p) by the softmax."""
    slopes = []
    for checkpoint in inputs.checkpoints:
        batch = inputs.queries.batch(np.arange(len(inputs.queries)))
        with torch.no_grad():
            logits = logits_of(_model(checkpoint), batch)
        p = _of_definition(logits, batch.labels, "probability").numpy()
        slopes.append(1 - p if target == "loss" else p * (1 - p))
    return np.stack(slopes)


@pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")
@pytest.mark.parametrize("method", ["trak", "ekfac", "traker", "kronfluence", "embedding", "bm25"])
def test_a_target_weighs_each_query_by_its_slope(made_inputs, method):
    """So the libraries, which differentiate the target themselves, give what the engine's own methods give."""
    inputs = made_inputs(num_labels=3, num_checkpoints=1)
    config = {"trak": TRAK, "traker": TRAK, "ekfac": EKFAC, "kronfluence": EKFAC}.get(method)
    scorers = METHODS[method].load()
    margins = scorers.score_queries(inputs, config, LocalPool())
    assert _slopes(inputs, "loss").std() > 0.05
    for target in OTHERS:
        asked, expected = dataclasses.replace(inputs, query_target=target), _slopes(inputs, target)[0] * margins
        tolerance = {"rtol": 0, "atol": 1e-5 * np.abs(expected).max()}
        np.testing.assert_allclose(scorers.score_queries(asked, config, LocalPool()), expected, **tolerance)
        of_groups = group_scores(expected, inputs.queries.groups, 3)
        np.testing.assert_allclose(scorers.score_groups(asked, config, LocalPool()), of_groups, **tolerance)


def test_similarities_are_weighed_by_the_slopes_of_each_checkpoint(made_inputs):
    inputs = made_inputs()
    loss, slopes = dataclasses.replace(inputs, query_target="loss"), _slopes(inputs, "loss")
    alone = [dataclasses.replace(inputs, checkpoints=(checkpoint,)) for checkpoint in inputs.checkpoints]
    for method, expected in {
        "embedding": np.mean(
            [
                METHODS["embedding"].load().score_queries(one, None, LocalPool()) * of_one
                for one, of_one in zip(alone, slopes, strict=True)
            ],
            axis=0,
        ),
        "bm25": METHODS["bm25"].load().score_queries(inputs, None, LocalPool()) * slopes.mean(axis=0),
    }.items():
        found = METHODS[method].load().score_queries(loss, None, LocalPool())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert found.dtype == np.float32


def test_margins_are_explained_without_a_pass_for_their_slopes(made_inputs, monkeypatch):
    monkeypatch.delattr(forward, "forward_pass")
    inputs = made_inputs()
    assert (forward.query_slopes("slopes", inputs, inputs.checkpoints[0], LocalPool()) == 1).all()
