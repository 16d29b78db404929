"""THE STORY of an experiment, and the stages that it goes through."""

from d3m_ray.experiment.run import Outcome
from d3m_ray.experiment.story import prepare, run_experiment

__all__ = ["Outcome", "prepare", "run_experiment"]
