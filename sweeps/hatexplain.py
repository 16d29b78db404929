"""HateXplain: posts about four identity groups, each labelled by three annotators."""

from d3m_ray.command import run_sweep
from d3m_ray.config import ExperimentConfig
from d3m_ray.data import HatexplainOptions

if __name__ == "__main__":
    run_sweep(
        "Prune HateXplain by group alignment and retrain.",
        ExperimentConfig(
            corpus_options=HatexplainOptions(),
            num_removed=(0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700),
        ),
    )
