"""What every attribution method receives: checkpoints, train examples, and queries that are never test examples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from d3m_ray.batching import TokenizedExamples
from d3m_ray.config import Precision, QueryTarget
from d3m_ray.model import BaseModel

ScoringPrecision = Precision | Literal["float64"]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights that were fine-tuned on the full train split. `key` names their content (the fit key)."""

    key: str
    base: BaseModel
    weights: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class AttributionInputs:
    """Train examples to attribute to, and the queries that are explained.

    Raises ValueError where the queries are not val examples: what is removed is chosen on train and val, and test is
    opened for the result only.
    """

    checkpoints: tuple[Checkpoint, ...]
    train: TokenizedExamples
    queries: TokenizedExamples
    num_groups: int
    precision: ScoringPrecision = "auto"
    """Precision of forward and backward matrix products; sums and scores are float32 or better. float64: all of it."""
    explains_test: bool = False
    """Whether test examples may be queries: the thesis's protocol alone, for comparison, lets them."""
    query_target: QueryTarget = "margin"
    """What is explained of each query: the function of its margin that scores speak of."""

    def __post_init__(self) -> None:
        if self.train.split != "train":
            raise ValueError(f"scores go to train examples, received {self.train.split} examples")
        if self.queries.split != ("test" if self.explains_test else "val"):
            raise ValueError(
                f"queries are val examples, received {self.queries.split} examples: test is opened for the result only"
            )
        if not self.checkpoints:
            raise ValueError("attribution takes at least one checkpoint, received none")
        if len(np.unique(self.queries.groups)) != self.num_groups:
            raise ValueError(f"each of the {self.num_groups} groups has queries; some have none in val")
