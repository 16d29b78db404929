"""TRAK against its definition and the traker library."""

import dataclasses

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import spearmanr

from d3m_ray.attribution import shards
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries import traker
from d3m_ray.attribution.trak import scores as trak
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.training.model import build_classifier, load_weights

CONFIG = TrakConfig(projection_dim=16)


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    checkpoints = []
    for seed in (0, 1):
        pretrained = tiny_base("bert", seed=seed)
        checkpoints.append(Checkpoint(f"seed {seed}", pretrained, pretrained.weights))
    return AttributionInputs(tuple(checkpoints), made_tokens("train", 60), made_tokens("val", 14, 3), 3, "float32")


def _model(checkpoint):
    model = build_classifier(checkpoint.pretrained)
    load_weights(model, checkpoint.weights)
    return model


def _features(checkpoint: Checkpoint, tokens) -> np.ndarray:
    gradients_of = ProjectedGradients(_model(checkpoint).double(), SignProjection(1024, 0))
    return gradients_of(tokens.batch(np.arange(len(tokens))))[0].numpy()


def _by_definition(inputs: AttributionInputs, config: TrakConfig) -> np.ndarray:
    """[N, Q] by equation 13 of the paper, one batch, explicit inverse, float64."""
    scores, slopes = [], []
    for checkpoint in inputs.checkpoints:
        gradients_of = ProjectedGradients(
            _model(checkpoint).double(), SignProjection(config.projection_dim, config.projection_seed)
        )
        train, margins = gradients_of(inputs.train.batch(np.arange(len(inputs.train))))
        queries, _ = gradients_of(inputs.queries.batch(np.arange(len(inputs.queries))))
        train, queries = train.numpy(), queries.numpy()
        gram = train.T @ train
        gram += config.damping * np.trace(gram) / len(gram) * np.eye(len(gram))  # of full rank: N > d
        scores.append(train @ np.linalg.inv(gram) @ queries.T)
        slopes.append(1 - expit(margins.numpy()))
    return np.mean(scores, axis=0) * np.mean(slopes, axis=0)[:, None]


@pytest.mark.parametrize("damping", [0.0, 0.5])
def test_scores_follow_the_definition(inputs, damping):
    config = dataclasses.replace(CONFIG, damping=damping)
    expected = _by_definition(inputs, config)
    np.testing.assert_allclose(
        trak.score_queries(inputs, config, LocalPool()), expected, atol=2e-4 * np.abs(expected).max()
    )


def test_shards_hold_every_example_once(made_tokens):
    tokens = made_tokens("train", 500)
    cut = shards.make_shards(tokens)
    assert sorted(np.concatenate(cut)) == list(range(500))
    assert len(cut) == 1


def test_fewer_examples_than_dimensions_give_the_least_norm_solution(inputs):
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(20, 50)), rng.normal(size=(50, 3))
    solved = trak.solve_gram(features.T @ features, targets, damping=0.0)
    np.testing.assert_allclose(features @ solved, np.linalg.pinv(features).T @ targets, atol=1e-10)
    assert np.isfinite(trak.score_groups(inputs, TrakConfig(projection_dim=100), LocalPool())).all()


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_solution_is_the_damped_inverse(damping):
    rng = np.random.default_rng(0)
    features, targets = rng.normal(size=(200, 50)), rng.normal(size=(50, 3))
    gram = features.T @ features
    expected = np.linalg.inv(gram + damping * np.trace(gram) / 50 * np.eye(50)) @ targets
    np.testing.assert_allclose(trak.solve_gram(gram, targets, damping), expected, atol=1e-12)


def test_test_examples_are_no_queries(inputs, made_tokens):
    with pytest.raises(ValueError, match="queries are val examples, received test examples"):
        dataclasses.replace(inputs, queries=made_tokens("test", 14, 3))
    with pytest.raises(ValueError, match="scores go to train examples, received val examples"):
        dataclasses.replace(inputs, train=made_tokens("val", 14, 3))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")
def test_agreement_with_traker_rises_with_the_dimension(inputs):
    """Rank agreement of the two-sided projection with the reference library's dense one, of as many dimensions."""
    seeds = range(3)  # one draw of few dimensions says little
    agreements = []
    for dim in (16, 64, 256, 1024):
        configs = [TrakConfig(projection_dim=dim, projection_seed=seed) for seed in seeds]
        ours, theirs = (
            [method.score_queries(inputs, config, LocalPool()).ravel() for config in configs]
            for method in (trak, traker)
        )
        agreements.append(np.mean([spearmanr(left, right).statistic for left in ours for right in theirs]))
    assert agreements == sorted(agreements)
    assert agreements[0] < 0.85
    assert agreements[-1] > 0.93
