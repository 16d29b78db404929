"""What every stage of an experiment needs, and what a run leaves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps
from typing import TypeVar

import numpy as np

from d3m_ray.errors import EngineLostError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.failures import Unscored
from d3m_ray.experiment.keys import NOTHING, alignment_key, checkpoint_keys, query_split
from d3m_ray.experiment.plan import alignment_names
from d3m_ray.experiment.progress import Progress
from d3m_ray.metrics.groups import group_losses
from d3m_ray.records import Examples, Predictions
from d3m_ray.selection.alignment import group_weights
from d3m_ray.trials.engine import Engine, FailedFit
from d3m_ray.trials.stored_fits import stored_predictions
from d3m_ray.trials.trial import TrialContext

MAX_RENEWALS = 5  # of an engine that has lost what hands out the work: a cluster that kills it each time ends the run


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the experiment's name in the store, the fits that failed, and what could not be scored."""

    experiment: str
    failed: Sequence[FailedFit]
    unscored: Sequence[Unscored] = ()


Asked = TypeVar("Asked")
Work = Callable[[Asked, Engine, Progress], Outcome]
"""Brings the store to hold what is asked for."""


def despite_lost_engines(work: Work[Asked]) -> Work[Asked]:
    """Have the work, which skips what is stored, begun again where what hands it out has died; a few times at most."""

    @wraps(work)
    def persistently(prepared: Asked, engine: Engine, progress: Progress) -> Outcome:
        for _ in range(MAX_RENEWALS):
            try:
                return work(prepared, engine, progress)
            except EngineLostError as error:
                engine.renew()
                progress.begin_again(error)
        return work(prepared, engine, progress)

    return persistently


@dataclass(frozen=True, eq=False)
class GroupWeighting:
    """Mean losses of groups under the base models, in nats, and the weights that follow from them; [G] float64 each."""

    losses: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, eq=False)
class Run:
    """What every stage needs: what was asked for, what the trials share, where the work runs and who is told."""

    config: ExperimentConfig
    context: TrialContext
    engine: Engine
    progress: Progress
    removed: np.ndarray = field(default_factory=lambda: NOTHING)
    """Positions of the train examples that earlier rounds removed: what is scored, and with which models, is without
    them."""

    def without(self, removed: np.ndarray) -> "Run":
        """The next round's."""
        return replace(self, removed=removed)

    def whole(self) -> "Run":
        """With the model and the tokens, which are loaded where they are not yet: what computes scores asks for it."""
        return replace(self, context=self.context.whole())

    @cached_property
    def kept(self) -> np.ndarray:
        """[N left] positions of the train examples that are scored."""
        return np.delete(np.arange(len(self.context.splits.train)), self.removed)

    @cached_property
    def train(self) -> Examples:
        """The train examples that are scored, in train order."""
        return self.context.splits.train.take(self.kept) if len(self.removed) else self.context.splits.train

    @property
    def queries(self) -> Examples:
        """The examples that are explained."""
        return self.context.splits.by_name()[query_split(self.config)]

    def base_predictions(self, examples: Examples) -> list[Predictions]:
        """What each base model says of the examples."""
        keys = checkpoint_keys(self.config, self.context, self.removed)
        return [stored_predictions(self.context.store, key, examples) for key in keys]

    def base_group_weights(self, examples: Examples, groups: np.ndarray, num_groups: int) -> GroupWeighting:
        """How alignment weighs groups of these examples, given their groups: by their loss, mean over the models."""
        predictions = self.base_predictions(examples)
        losses: np.ndarray = np.mean([group_losses(p, groups, num_groups) for p in predictions], axis=0)
        return GroupWeighting(losses, group_weights(losses, self.config.alignment))

    def stored_alignments(self) -> dict[str, np.ndarray]:
        """[N] alignments by name, those that the store has."""
        found = {name: self.stored_alignment(name) for name in alignment_names(self.config)}
        return {name: alignment for name, alignment in found.items() if alignment is not None}

    def stored_alignment(self, name: str) -> np.ndarray | None:
        """[N] one alignment, if the store has it."""
        key = alignment_key(name, self.config, self.context, self.removed)
        if not self.context.store.has_whole("alignments", key, name, self.progress.stage):
            return None
        return self.context.store.read("alignments", key, name)["alignment"].to_numpy()
