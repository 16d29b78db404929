"""THE STORY of an experiment, and the stages that it goes through."""

from d3m_ray.experiment.run import Outcome, Run
from d3m_ray.experiment.scoring import is_scored, query_scores, targets_of
from d3m_ray.experiment.stages import base_models, discard_incomplete, gather_evidence, train, unless_it_fails
from d3m_ray.experiment.story import keep_supported, prepare, run_experiment

__all__ = [
    "Outcome",
    "Run",
    "base_models",
    "discard_incomplete",
    "gather_evidence",
    "is_scored",
    "keep_supported",
    "prepare",
    "query_scores",
    "run_experiment",
    "targets_of",
    "train",
    "unless_it_fails",
]
