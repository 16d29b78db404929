"""What every stage of an experiment needs, and what a run leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from d3m_ray.config import ExperimentConfig
from d3m_ray.engine import Engine, FailedFit
from d3m_ray.failures import Unscored
from d3m_ray.planning import alignment_key, alignment_names, checkpoint_keys, query_split
from d3m_ray.progress import Progress
from d3m_ray.records import Examples, Predictions
from d3m_ray.trial import TrialContext, stored_predictions


@dataclass(frozen=True)
class Outcome:
    """What a run leaves: the experiment's name in the store, the fits that failed, and what could not be scored."""

    experiment: str
    failed: Sequence[FailedFit]
    unscored: Sequence[Unscored] = ()


@dataclass(frozen=True, eq=False)
class Run:
    """What every stage needs: what was asked for, what the trials share, where the work runs and who is told."""

    config: ExperimentConfig
    context: TrialContext
    engine: Engine
    progress: Progress

    @property
    def queries(self) -> Examples:
        """The examples that are explained."""
        return self.context.splits.by_name()[query_split(self.config)]

    def base_predictions(self, examples: Examples) -> list[Predictions]:
        """What each base model says of the examples."""
        keys = checkpoint_keys(self.config, self.context)
        return [stored_predictions(self.context.store, key, examples) for key in keys]

    def stored_alignments(self) -> dict[str, np.ndarray]:
        """[N] alignments by name, those that the store has."""
        alignments = {}
        for name in alignment_names(self.config):
            key = alignment_key(name, self.config, self.context)
            if self.context.store.has_whole("alignments", key, name, self.progress.stage):
                alignments[name] = self.context.store.read("alignments", key, name)["alignment"].to_numpy()
        return alignments
