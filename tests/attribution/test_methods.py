"""What holds for every attribution method: shapes, groups as means of queries, and results that no shard changes."""

import dataclasses

import numpy as np
import pytest

from d3m_ray.attribution import shards
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.pool import LocalPool
from d3m_ray.selection.arms import ARMS

pytestmark = pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")

DRAWS_BY_POSITION = ("random", "ekfac", "kronfluence")
BY_QUERY = [name for name, method in METHODS.items() if method.scores_queries]
"""The others replay a run of training, in whose batches each example has its place: see test_metagradient.py."""
DEFAULTS = ExperimentConfig(corpus=Planted())


def _settings(method: str) -> object:
    field = METHODS[method].settings
    settings = None if field is None else getattr(DEFAULTS, field)
    return dataclasses.replace(settings, projection_dim=64) if field == "trak" else settings


@pytest.fixture(params=[2, 3], ids=["two labels", "three labels"])
def inputs(request, tiny_base, made_tokens) -> AttributionInputs:
    base = tiny_base("bert", num_labels=request.param)
    return AttributionInputs(
        checkpoints=(Checkpoint("made", base, base.weights),),
        train=made_tokens("train", 40, num_labels=request.param),
        queries=made_tokens("val", 9, 3, num_labels=request.param),
        num_groups=3,
        precision="float64",
    )


@pytest.mark.parametrize("method", BY_QUERY)
def test_group_scores_are_means_of_query_scores(method, inputs):
    of_groups = METHODS[method].load().score_groups(inputs, _settings(method), LocalPool())
    of_queries = METHODS[method].load().score_queries(inputs, _settings(method), LocalPool())
    assert (of_groups.shape, of_queries.shape) == ((40, 3), (40, 9))
    assert of_groups.dtype == of_queries.dtype == np.float32
    means = np.stack([of_queries[:, inputs.queries.groups == group].mean(axis=1) for group in range(3)], axis=1)
    np.testing.assert_allclose(of_groups, means, rtol=0, atol=1e-5 * np.abs(means).max())
    assert np.ptp(of_groups) > 0


@pytest.mark.parametrize("method", BY_QUERY)
def test_shards_change_float64_scores_by_rounding_only(method, inputs, monkeypatch):
    whole = METHODS[method].load().score_groups(inputs, _settings(method), LocalPool())
    monkeypatch.setattr(shards, "MIN_SHARD_TOKENS", 50)
    assert len(shards.make_shards(inputs.train)) > 4
    in_parts = METHODS[method].load().score_groups(inputs, _settings(method), LocalPool())
    np.testing.assert_allclose(in_parts, whole, rtol=0, atol=1e-6 * np.abs(whole).max())


@pytest.mark.parametrize("method", [m for m in BY_QUERY if m not in DRAWS_BY_POSITION])
def test_the_order_of_the_train_examples_does_not_matter(method, inputs):
    order = np.random.default_rng(0).permutation(40)
    there = METHODS[method].load().score_groups(inputs, _settings(method), LocalPool())
    shuffled = dataclasses.replace(inputs, train=inputs.train.take(order))
    back = METHODS[method].load().score_groups(shuffled, _settings(method), LocalPool())
    np.testing.assert_allclose(back, there[order], rtol=0, atol=1e-5 * np.abs(there).max())


def test_the_registry_says_what_the_scorers_can():
    for name, method in METHODS.items():
        assert method.name == name
        assert (method.load().score_queries is not None) == method.scores_queries
        assert (method.load().score_alignment is not None) == (not method.scores_queries)
        assert (f"{name}_auto" in ARMS) == (method.scores_queries and method.reads_queries)
        settings = None if method.settings is None else getattr(DEFAULTS, method.settings)
        names = set() if settings is None else {field.name for field in dataclasses.fields(settings)}
        assert set(method.reads) <= names
        assert bool(method.reads) == bool(names)
