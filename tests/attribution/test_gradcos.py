"""The cosine of projected gradients against its definition; at its largest where train and query are the same."""

import dataclasses

import numpy as np
import pytest
import torch

from d3m_ray.attribution.gradcos import SCORERS
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.targets import target_slopes
from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.training.model import build_classifier, load_weights

CONFIG = TrakConfig(projection_dim=64, projection_seed=1)


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    bases = [tiny_base("bert", seed=seed) for seed in (0, 1)]
    checkpoints = tuple(
        Checkpoint(f"seed {seed}", pretrained, pretrained.weights) for seed, pretrained in enumerate(bases)
    )
    return AttributionInputs(checkpoints, made_tokens("train", 12), made_tokens("val", 9, 3), 3, "float64")


def _units(checkpoint, tokens):
    """[n, d] features of length 1 and [n] margins, each example by itself."""
    model = build_classifier(checkpoint.pretrained)
    load_weights(model, checkpoint.weights)
    gradients_of = ProjectedGradients(model.double(), SignProjection(64, 1))
    singly = [gradients_of(tokens.batch(np.array([place]))) for place in range(len(tokens))]
    features, margins = (torch.cat(parts) for parts in zip(*singly, strict=True))
    return features / features.norm(dim=1, keepdim=True), margins


@pytest.mark.parametrize("of", ["margin", "loss"])
def test_scores_follow_the_definition(of, inputs):
    expected = []
    for checkpoint in inputs.checkpoints:
        train, _ = _units(checkpoint, inputs.train)
        queries, margins = _units(checkpoint, inputs.queries)
        expected.append((train @ queries.T * target_slopes(margins, of)).numpy())
    found = SCORERS.score_queries(dataclasses.replace(inputs, query_target=of), CONFIG, LocalPool())
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-5, atol=1e-6)


def test_an_example_is_nearest_to_itself(inputs):
    same = dataclasses.replace(inputs, queries=dataclasses.replace(inputs.train, split="val"), num_groups=2)
    np.testing.assert_allclose(np.diag(SCORERS.score_queries(same, CONFIG, LocalPool())), 1, rtol=1e-6)
