"""What computes an attribution method's scores: functions of inputs, settings and a worker pool.

Shapes: N train examples, G groups, Q queries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.pool import WorkerPool

Score = Callable[[AttributionInputs, Any, WorkerPool], np.ndarray]
ScoreAlignment = Callable[[AttributionInputs, Any, WorkerPool, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scorers:
    """How a method scores. The second argument of each is its settings: see `registry.Method`."""

    score_groups: Score
    """[N, G] float32: how much each train example raises the mean target of each group's queries."""
    score_queries: Score | None
    """[N, Q] float32: how much each train example raises each query's target; None where the cost is per target."""
    score_alignment: ScoreAlignment | None = None
    """[N, 1] float32, given weights [G]: how much each train example raises the groups' mean targets, summed in these
    weights. Of a method whose cost is per target, so that one is a G-th of `score_groups`."""
