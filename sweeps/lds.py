"""How well does each attribution method predict retraining? The linear datamodeling score on HateXplain."""

from d3m_ray.commands.sweeps import run_lds_sweep
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.studies import LdsConfig

if __name__ == "__main__":
    run_lds_sweep(
        "Retrain on random subsets of train and rank the methods by how well their scores predict what comes of it.",
        LdsConfig(
            ExperimentConfig(
                corpus=Hatexplain(),
                methods=("trak", "ekfac", "embedding", "random"),
            ),
            removal_shares=("1%", "5%", "10%"),
        ),
    )
