"""METHODS by name: each turns checkpoints, train examples and queries into scores over a worker pool."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3m_ray.attribution import controls, gradcos, similarity
from d3m_ray.attribution.ekfac import scores as ekfac
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.attribution.libraries import kronfluence, traker
from d3m_ray.attribution.metagradient import methods as metagradient
from d3m_ray.attribution.trak import scores as trak
from d3m_ray.pool import WorkerPool

Score = Callable[[AttributionInputs, Any, WorkerPool], np.ndarray]
ScoreAlignment = Callable[[AttributionInputs, Any, WorkerPool, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """How a method scores. The second argument is its settings: see `names.ATTRIBUTION_SETTINGS`."""

    score_groups: Score
    """[N, G] float32: how much each train example raises the mean target of each group's queries."""
    score_queries: Score | None
    """[N, Q] float32: how much each train example raises the target of each query; None of `SCORE_NO_QUERY`."""
    score_alignment: ScoreAlignment | None = None
    """[N, 1] float32, given weights [G]: how much each train example raises the groups' mean targets, summed in these
    weights. Of a method whose cost is per target, so that one is a G-th of `score_groups`."""


METHODS: Mapping[str, Method] = {
    "trak": Method(trak.score_groups, trak.score_queries),
    "ekfac": Method(ekfac.score_groups, ekfac.score_queries),
    "traker": Method(traker.score_groups, traker.score_queries),
    "kronfluence": Method(kronfluence.score_groups, kronfluence.score_queries),
    "metagradient": Method(metagradient.score_groups, None, metagradient.score_alignment),
    "tracin": Method(metagradient.tracin_groups, None, metagradient.tracin_alignment),
    "gradcos": Method(gradcos.gradcos_groups, gradcos.gradcos_queries),
    "bm25": Method(similarity.bm25_groups, similarity.bm25_queries),
    "embedding": Method(similarity.embedding_groups, similarity.embedding_queries),
    "loss": Method(controls.loss_groups, controls.loss_queries),
    "random": Method(controls.random_groups, controls.random_queries),
}
"""The methods by name, those of `names.ATTRIBUTION_SETTINGS`."""

__all__ = ["METHODS", "AttributionInputs", "Checkpoint", "Method", "Score", "TrainingRun"]
