"""What computes an attribution method's scores: functions of inputs, settings and a worker pool.

Shapes: N train examples, G groups, Q queries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
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


def by_query_sets(name: str, score: Score) -> Scorers:
    """The scorers of a method of one function, which scores the query sets of its inputs: [N, query sets]."""

    def of(query_sets: Sequence[np.ndarray], inputs: AttributionInputs, settings: Any, pool: WorkerPool) -> np.ndarray:
        scores = np.asarray(score(replace(inputs, query_sets=tuple(query_sets)), settings, pool))
        expected = (len(inputs.train), len(query_sets))
        if scores.shape != expected:
            raise ValueError(f"{name} gives [train examples, query sets] {expected}, received shape {scores.shape}")
        if scores.dtype.kind not in "biuf":  # a complex number would lose a part, a text be parsed
            raise ValueError(f"{name} gives real numbers, received {scores.dtype}")
        return scores.astype(np.float32)

    def score_groups(inputs: AttributionInputs, settings: Any, pool: WorkerPool) -> np.ndarray:
        groups = [np.flatnonzero(inputs.queries.groups == group) for group in range(inputs.num_groups)]
        return of(groups, inputs, settings, pool)

    def score_queries(inputs: AttributionInputs, settings: Any, pool: WorkerPool) -> np.ndarray:
        return of([np.array([query]) for query in range(len(inputs.queries))], inputs, settings, pool)

    return Scorers(score_groups, score_queries)
