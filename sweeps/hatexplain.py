"""HateXplain: posts about four identity groups, each labelled by three annotators."""

from d3m_ray.commands.sweeps import run_sweep
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.experiment.config import ExperimentConfig

if __name__ == "__main__":
    run_sweep(
        "Prune HateXplain by group alignment and retrain.",
        ExperimentConfig(
            corpus=Hatexplain(),
            num_removed=(0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700),
        ),
    )
