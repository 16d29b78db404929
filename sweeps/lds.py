"""How well does each attribution method foretell retraining? The linear datamodeling score on HateXplain."""

from d3m_ray.command import run_lds_sweep
from d3m_ray.config import ExperimentConfig, LdsConfig
from d3m_ray.data import HatexplainOptions

if __name__ == "__main__":
    run_lds_sweep(
        "Retrain on random halves of train and rank the methods by how well their scores foretell the margins.",
        LdsConfig(
            ExperimentConfig(
                corpus_options=HatexplainOptions(),
                methods=("trak", "ekfac", "embedding", "random"),
            )
        ),
    )
