"""What every attribution method receives: checkpoints, train examples, and queries that are never test examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from d3m_ray.records import DeviceKind, QueryTarget
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import Precision, TrainingConfig

ScoringPrecision = Precision | Literal["float64"]


def _ignore(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """Which run of `fine_tuning.fine_tune` gave a checkpoint: all that a replay needs besides the pretrained one."""

    config: TrainingConfig
    seed: int
    chosen_epoch: int
    """1-based epoch whose weights are the checkpoint's."""
    train: TokenizedExamples
    """The full train split."""
    kept: np.ndarray
    """[N] ascending positions of what the run had of it: the train examples that scores go to."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights that were fine-tuned on the full train split. `key` names their content (the fit key)."""

    key: str
    pretrained: PretrainedModel
    weights: Mapping[str, np.ndarray]
    run: TrainingRun | None = None
    """Where the weights come from; only methods that replay it ask."""
    device: DeviceKind = "cpu"
    """What it is scored on."""


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
    query_sets: tuple[np.ndarray, ...] = ()
    """For a method of one function: the positions of the queries that each column of scores explains together, as the
    mean of their targets."""
    say: Callable[[str], None] = _ignore
    """Told, in a line, what a person should know of how the scores came about."""
    record: Callable[[str, Any], None] = _ignore
    """Given the name and the JSON value of each finding that the scores' metadata should keep."""

    def __getstate__(self) -> dict[str, Any]:
        """As a worker gets them: who is told, and who records, stay with the driver."""
        return vars(self) | {"say": _ignore, "record": _ignore}

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
