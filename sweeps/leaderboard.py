"""Which attribution method is best? Methods on HateXplain, by LDS, by what removal does, and by its cost."""

from d3m_ray.command import run_leaderboard_sweep
from d3m_ray.config import ExperimentConfig, LeaderboardConfig
from d3m_ray.data import HatexplainOptions

if __name__ == "__main__":
    run_leaderboard_sweep(
        "Rank attribution methods by how well they foretell retraining, by what removal by them does, and by seconds.",
        LeaderboardConfig(
            ExperimentConfig(
                corpus_options=HatexplainOptions(),
                methods=("trak", "ekfac", "embedding", "bm25", "loss", "random"),
            )
        ),
    )
