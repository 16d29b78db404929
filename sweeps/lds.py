"""How well does each attribution method foretell retraining? The linear datamodeling score on HateXplain."""

from d3m_ray.command import run_lds_sweep
from d3m_ray.config import ExperimentConfig, LdsConfig
from d3m_ray.data import HatexplainOptions

if __name__ == "__main__":
    run_lds_sweep(
        "Retrain on random subsets of train and rank the methods by how well their scores foretell what comes of it.",
        LdsConfig(
            ExperimentConfig(
                corpus_options=HatexplainOptions(),
                methods=("trak", "ekfac", "embedding", "random"),
            ),
            removal_shares=("1%", "5%", "10%"),
        ),
    )
