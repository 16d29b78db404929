"""What holds for every attribution method, by the suite that plug-ins are held to; and the registry against it."""

import dataclasses

import pytest

from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.selection.arms import ARMS
from d3m_ray.testing import check_method

DRAWS_BY_POSITION = ("random", "ekfac", "kronfluence")
SETTINGS = {name: TrakConfig(projection_dim=64) for name, method in METHODS.items() if method.settings == "trak"}
LIMITS = {
    "trak": {"shards.GRADIENT_TOKENS": 30},
    "gradcos": {"shards.GRADIENT_TOKENS": 30},
    "embedding": {"similarity.FORWARD_TOKENS": 30},
    "ekfac": {"shards.GRADIENT_TOKENS": 16, "ekfac.scores.EXAMPLES_AT_ONCE": 3}
    | {"ekfac.scores.BLOCK_BYTES": 60_000},  # two queries, by turns
    "traker": {"libraries.traker.BATCH_TOKENS": 30, "libraries.traker.MAX_SHARDS": 4},
    "kronfluence": {"libraries.kronfluence_margin.BATCH_EXAMPLES": 3, "libraries.kronfluence_margin.BATCH_TOKENS": 30}
    | {"libraries.kronfluence.TRAIN_PER_QUERY_TOKENS": 1, "libraries.kronfluence.QUERY_BATCH_BYTES": 200_000},
}
"""What bounds a batch or a block of each, and a small value."""
DEFAULTS = ExperimentConfig(corpus=Planted())


@pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, marks=pytest.mark.slow) if m in ("ekfac", "kronfluence") else m for m in METHODS],
)
def test_every_method_keeps_what_the_engine_relies_on(method):
    limits = {f"d3m_ray.attribution.{place}": value for place, value in LIMITS.get(method, {}).items()}
    check_method(method, SETTINGS.get(method), any_order=method not in DRAWS_BY_POSITION, limits=limits)


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
