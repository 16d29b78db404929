"""EK-FAC influence against one-example gradients, exact leave-one-out and the explicit inverse, all in float64."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.special import expit
from transformers.pytorch_utils import Conv1D

from d3m_ray.attribution import shards
from d3m_ray.attribution.ekfac import scores as ekfac
from d3m_ray.attribution.ekfac.curvature import fit_curvature
from d3m_ray.attribution.ekfac.fisher import drawn_labels, uniform_draws
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries import kronfluence
from d3m_ray.errors import InputError
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.model import build_classifier, load_weights, margins_of
from d3m_ray.training.pretrained import PretrainedModel

CONFIG = EkfacConfig()


def _telling(pretrained: PretrainedModel) -> PretrainedModel:
    """The same model with every weight moved: biases that are all zero tell no bug."""
    rng = np.random.default_rng(0)
    moved = {
        name: (value + 0.1 * rng.standard_normal(value.shape)).astype(np.float32)
        for name, value in pretrained.weights.items()
        if np.issubdtype(value.dtype, np.floating)
    }
    return dataclasses.replace(pretrained, weights={**pretrained.weights, **moved})


@pytest.fixture
def made_inputs(tiny_base, made_tokens):
    def make(architecture="bert", num_train=24, num_queries=6, precision="float64", num_checkpoints=1, num_labels=2):
        bases = [_telling(tiny_base(architecture, seed=seed, num_labels=num_labels)) for seed in range(num_checkpoints)]
        pad = bases[0].config["pad_token_id"]
        return AttributionInputs(
            checkpoints=tuple(Checkpoint(f"c{i}-{architecture}", b, b.weights) for i, b in enumerate(bases)),
            train=dataclasses.replace(made_tokens(num_examples=num_train, num_labels=num_labels), pad_id=pad),
            queries=dataclasses.replace(made_tokens("val", num_queries, num_labels=num_labels), pad_id=pad),
            num_groups=2,
            precision=precision,
        )

    return make


def _model(checkpoint: Checkpoint):
    model = build_classifier(checkpoint.pretrained).double().eval()
    load_weights(model, checkpoint.weights)
    return model


def _linears(model, modules=()) -> dict[str, torch.nn.Linear]:
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and (not modules or name in modules)
    }


@dataclasses.dataclass
class Caught:
    """Of one example and layer: inputs [T, I], output gradients [T, O] and the gradient [O, I], all of one number."""

    rows: np.ndarray
    slopes: np.ndarray
    gradient: np.ndarray


def _with_ones(layer, rows: torch.Tensor) -> torch.Tensor:
    rows = rows.detach().reshape(-1, rows.shape[-1])
    return rows if layer.bias is None else torch.cat([rows, torch.ones(len(rows), 1, dtype=rows.dtype)], dim=1)


def _margin(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return margins_of(logits, labels).sum()


def _minus_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return -torch.nn.functional.cross_entropy(logits, labels)


def _one_by_one(
    model, linears, examples: TokenizedExamples, number_of=_margin, labels=None
) -> list[tuple[float, dict[str, Caught]]]:
    """Of each example alone, by an ordinary backward pass: its margin or another number, and what the layers saw."""
    labels = examples.labels if labels is None else labels
    seen = {}

    def hook(layer, args, output):
        output.retain_grad()
        seen[layer] = (_with_ones(layer, args[0]), output)

    handles = [layer.register_forward_hook(hook) for layer in linears.values()]
    found = []
    for index in range(len(examples)):
        batch = examples.batch(np.array([index]))
        model.zero_grad()
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
        number = number_of(logits, torch.from_numpy(labels[index : index + 1].copy()))
        number.backward()
        caught = {}
        for name, layer in linears.items():
            rows, output = seen[layer]
            weight = layer.weight.grad.T if isinstance(layer, Conv1D) else layer.weight.grad
            gradient = [weight] + ([] if layer.bias is None else [layer.bias.grad[:, None]])
            slopes = output.grad.reshape(-1, output.shape[-1])
            caught[name] = Caught(rows.numpy(), slopes.numpy(), torch.cat(gradient, dim=1).numpy().copy())
        found.append((number.item(), caught))
    for handle in handles:
        handle.remove()
    return found


def _by_hand(inputs: AttributionInputs, config: EkfacConfig, modules=()) -> np.ndarray:
    """[N, Q] scores of the first checkpoint by explicit matrices, one example at a time."""
    model = _model(inputs.checkpoints[0])
    linears = _linears(model, modules)
    with torch.no_grad():
        batch = inputs.train.batch(np.arange(len(inputs.train)))
        probabilities = model(batch.input_ids, attention_mask=batch.attention_mask).logits.softmax(dim=1).numpy()
    drawn = drawn_labels(probabilities, uniform_draws(len(inputs.train), config.label_seed))
    of_fisher = _one_by_one(model, linears, inputs.train, _minus_loss, drawn)
    of_train = _one_by_one(model, linears, inputs.train, _minus_loss)
    of_queries = _one_by_one(model, linears, inputs.queries)
    scores = np.zeros((len(of_train), len(of_queries)))
    for name in linears:
        at_drawn = [caught[name] for _, caught in of_fisher]
        U_A = np.linalg.eigh(sum(c.rows.T @ c.rows for c in at_drawn))[1]
        U_S = np.linalg.eigh(sum(c.slopes.T @ c.slopes for c in at_drawn))[1]
        eigenvalues = np.mean([(U_S.T @ c.gradient @ U_A) ** 2 for c in at_drawn], axis=0)
        damped = eigenvalues + config.damping * eigenvalues.mean()
        gradients = np.stack([caught[name].gradient for _, caught in of_train])
        for q, (_, caught) in enumerate(of_queries):
            direction = U_S @ ((U_S.T @ caught[name].gradient @ U_A) / damped) @ U_A.T
            scores[:, q] += (gradients * direction).sum(axis=(1, 2))
    return scores


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "modernbert", "gpt2", "llama"])
def test_scores_are_those_of_explicit_matrices(num_labels, architecture, made_inputs):
    inputs = made_inputs(architecture, num_labels=num_labels)
    expected = _by_hand(inputs, CONFIG)
    scores = ekfac.score_queries(inputs, CONFIG, LocalPool())
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_damping_is_in_means_of_the_eigenvalues(damping, made_inputs):
    inputs, config = made_inputs(), EkfacConfig(damping=damping)
    expected = _by_hand(inputs, config)
    scores = ekfac.score_queries(inputs, config, LocalPool())
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_modules_narrow_the_layers(made_inputs):
    inputs = made_inputs()
    config = EkfacConfig(modules=("classifier", "bert.encoder.layer.1.output"))
    expected = _by_hand(inputs, config, modules=("classifier", "bert.encoder.layer.1.output.dense"))
    scores = ekfac.score_queries(inputs, config, LocalPool())
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_an_unknown_module_is_refused(made_inputs):
    with pytest.raises(InputError, match=r"--ekfac-modules takes .*received 'bert\.head'"):
        ekfac.score_groups(made_inputs(), EkfacConfig(modules=("bert.head",)), LocalPool())


def test_checkpoints_are_averaged(made_inputs):
    inputs = made_inputs(num_checkpoints=2)
    alone = [
        ekfac.score_groups(dataclasses.replace(inputs, checkpoints=(c,)), CONFIG, LocalPool())
        for c in inputs.checkpoints
    ]
    assert np.abs(alone[0] - alone[1]).max() > 0.1 * np.abs(alone[0]).max()
    both = ekfac.score_groups(inputs, CONFIG, LocalPool())
    np.testing.assert_allclose(both, (alone[0] + alone[1]) / 2, rtol=1e-5, atol=1e-6 * np.abs(both).max())


def test_float32_shards_and_batches_differ_by_rounding_only(made_inputs, monkeypatch):
    inputs = made_inputs(precision="float32")
    whole = ekfac.score_groups(inputs, CONFIG, LocalPool())
    exact = ekfac.score_groups(dataclasses.replace(inputs, precision="float64"), CONFIG, LocalPool())
    monkeypatch.setattr(shards, "MIN_SHARD_TOKENS", 20)
    monkeypatch.setattr(shards, "GRADIENT_TOKENS", 16)
    in_parts = ekfac.score_groups(inputs, CONFIG, LocalPool())
    np.testing.assert_allclose(in_parts, whole, atol=1e-3 * np.abs(whole).max(), rtol=0)
    np.testing.assert_allclose(whole, exact, atol=1e-3 * np.abs(exact).max(), rtol=0)


def test_bfloat16_keeps_the_order_of_the_scores(made_inputs):
    exact, low = (
        ekfac.score_groups(made_inputs(precision=p, num_train=64), CONFIG, LocalPool()) for p in ("float64", "bfloat16")
    )
    assert np.corrcoef(exact.ravel(), low.ravel())[0, 1] > 0.98


def test_another_label_seed_draws_another_fisher_matrix(made_inputs):
    inputs = made_inputs()
    first, again, other = (ekfac.score_groups(inputs, EkfacConfig(label_seed=seed), LocalPool()) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3 * np.abs(first).max()


@pytest.mark.parametrize(
    ("precision", "num_labels", "correlation"),
    [("float64", 2, 0.999_999), ("float64", 3, 0.999_999), ("float32", 2, 0.999), ("bfloat16", 2, 0.99)],
)
def test_scores_are_those_of_kronfluence(precision, num_labels, correlation, architecture, made_inputs):
    """The same modules, damping and drawn labels; in float64 but for rounding. The library has no bfloat16."""
    inputs = made_inputs(architecture, num_train=64, precision=precision, num_labels=num_labels)
    native, library = (method.score_groups(inputs, CONFIG, LocalPool()) for method in (ekfac, kronfluence))
    assert np.corrcoef(native.ravel(), library.ravel())[0, 1] > correlation
    if precision == "float64":
        np.testing.assert_allclose(native, library, atol=1e-6 * np.abs(library).max(), rtol=0)


@pytest.mark.parametrize("probabilities", [[0.12, 0.88], [0.2, 0.5, 0.3]])
def test_labels_are_drawn_from_the_models_probabilities(probabilities):
    num_draws = 20_000
    drawn = drawn_labels(np.tile(probabilities, (num_draws, 1)), uniform_draws(num_draws, 0))
    shares = np.bincount(drawn, minlength=len(probabilities)) / num_draws
    np.testing.assert_allclose(shares, probabilities, atol=0.01)


def test_a_layer_in_several_places_is_refused(tiny_base, made_inputs, monkeypatch):
    inputs = made_inputs()

    def build_shared(pretrained, device="cpu"):
        model = build_classifier(pretrained, device)
        model.bert.encoder.layer[1] = model.bert.encoder.layer[0]
        model.load_state_dict = lambda weights: None
        return model

    monkeypatch.setattr("d3m_ray.attribution.worker.build_classifier", build_shared)
    with pytest.raises(InputError, match=r"bert\.encoder\.layer\.0\.\S+ stands in several places"):
        ekfac.score_groups(inputs, CONFIG, LocalPool())


def _optimal_head(features: np.ndarray, labels: np.ndarray, l2: float) -> np.ndarray:
    """[H + 1] of logistic regression, d logits of label 1: argmin mean log(1 + exp(-+ f w)) + l2 / 4 |w|^2, by Newton.

    The two rows of the classifier are -w / 2 and w / 2, so that l2 / 2 of their squares is l2 / 4 |w|^2.
    """
    w = np.zeros(features.shape[1])
    for _ in range(30):
        p = expit(features @ w)
        gradient = features.T @ (p - labels) / len(labels) + l2 / 2 * w
        hessian = (features.T * (p * (1 - p))) @ features / len(labels) + l2 / 2 * np.eye(len(w))
        w -= np.linalg.solve(hessian, gradient)
    assert np.abs(gradient).max() < 1e-12
    return w


def _head_features(checkpoint: Checkpoint, examples: TokenizedExamples) -> np.ndarray:
    model = _model(checkpoint)
    return np.concatenate([c["classifier"].rows for _, c in _one_by_one(model, _linears(model), examples)])


def test_scores_predict_exact_leave_one_out_of_a_logistic_regression(made_inputs):
    l2 = 0.05
    inputs = made_inputs(num_train=80, num_queries=10)
    checkpoint = inputs.checkpoints[0]
    features, query_features = (_head_features(checkpoint, x) for x in (inputs.train, inputs.queries))
    labels, signs = inputs.train.labels, 2 * inputs.queries.labels - 1
    w = _optimal_head(features, labels, l2)
    head = np.stack([-w, w]) / 2
    weights = {**checkpoint.weights, "classifier.weight": head[:, :-1], "classifier.bias": head[:, -1]}
    at_optimum = dataclasses.replace(checkpoint, key="optimum", weights=weights)
    inputs = dataclasses.replace(inputs, checkpoints=(at_optimum,))

    modules = ("classifier",)
    fitted = fit_curvature("", inputs, at_optimum, EkfacConfig(modules=modules), LocalPool())
    damping = l2 / fitted.eigenvalues["classifier"].mean()
    scores = ekfac.score_queries(inputs, EkfacConfig(modules=modules, damping=damping), LocalPool())

    margins = signs * (query_features @ w)
    without = np.stack(
        [
            signs * (query_features @ _optimal_head(np.delete(features, i, 0), np.delete(labels, i), l2))
            for i in range(len(labels))
        ]
    )
    lost = len(labels) * (margins - without)
    assert np.corrcoef(scores.ravel(), lost.ravel())[0, 1] > 0.98
    slope = (scores * lost).sum() / (scores**2).sum()  # not the order alone, the size too
    assert 0.85 < slope < 1.15


@pytest.mark.parametrize(("damping", "correlation", "size"), [(0.1, 0.8, 1.2), (1000.0, 0.999, 0.1)])
def test_scores_are_near_those_of_the_explicit_inverse_of_the_gauss_newton_matrix(
    damping, correlation, size, made_inputs
):
    """Near, and the nearer the more damping outweighs what EK-FAC leaves out: correlations within its eigenbases."""
    inputs = made_inputs(num_train=400, num_queries=10)
    checkpoint = inputs.checkpoints[0]
    config = EkfacConfig(damping=damping)
    model = _model(checkpoint)
    linears = _linears(model)
    fitted = fit_curvature("", inputs, checkpoint, config, LocalPool())

    expected = np.zeros((400, 10))
    train, queries = (_one_by_one(model, linears, examples) for examples in (inputs.train, inputs.queries))
    margins = np.array([margin for margin, _ in train])
    for name in linears:
        of_train, of_queries = (
            np.stack([caught[name].gradient.ravel() for _, caught in found]) for found in (train, queries)
        )
        # Of two labels the expectation over drawn ones is p (1 - p) times the squared slope of the margin.
        matrix = (of_train.T * (expit(margins) * expit(-margins))) @ of_train / len(train)
        matrix += damping * fitted.eigenvalues[name].mean() * np.eye(len(matrix))
        expected += expit(-margins)[:, None] * (of_train @ np.linalg.solve(matrix, of_queries.T))

    scores = ekfac.score_queries(inputs, config, LocalPool())
    assert np.corrcoef(scores.ravel(), expected.ravel())[0, 1] > correlation
    slope = (scores * expected).sum() / (expected**2).sum()
    assert abs(slope - 1) < size
