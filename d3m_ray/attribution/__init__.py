"""METHODS by name: each turns checkpoints, train examples and queries into scores over a worker pool."""

from collections.abc import Callable, Mapping

import numpy as np

from d3m_ray.attribution import trak
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.config import TrakConfig
from d3m_ray.pool import WorkerPool

METHODS: Mapping[str, Callable[[AttributionInputs, TrakConfig, WorkerPool], np.ndarray]] = {"trak": trak.score_groups}
"""[N, G] float32 scores of every train example for every group, by the method's name."""

__all__ = ["METHODS", "AttributionInputs", "Checkpoint"]
