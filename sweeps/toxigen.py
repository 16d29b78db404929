"""ToxiGen: statements about 13 identity groups, machine-generated for training, labelled by people for the test."""

from d3m_ray.command import run_sweep
from d3m_ray.config import ExperimentConfig
from d3m_ray.data import ToxigenOptions

if __name__ == "__main__":
    run_sweep(
        "Prune ToxiGen by group alignment and retrain.",
        ExperimentConfig(
            corpus_options=ToxigenOptions(),
            num_removed=(0, 50, 100, 200, 300, 400, 500, 1000, 3000, 5000),
        ),
    )
