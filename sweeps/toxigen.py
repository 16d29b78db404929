"""ToxiGen: statements about 13 identity groups, machine-generated for training, labelled by people for the test."""

from d3m_ray.commands.sweeps import run_sweep
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.experiment.config import ExperimentConfig

if __name__ == "__main__":
    run_sweep(
        "Prune ToxiGen by group alignment and retrain.",
        ExperimentConfig(
            corpus=Toxigen(),
            num_removed=(0, 50, 100, 200, 300, 400, 500, 1000, 3000, 5000),
        ),
    )
