"""Which attribution method is best? Methods on HateXplain, by LDS, by what removal does, and by its cost."""

from d3m_ray.commands.sweeps import run_leaderboard_sweep
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.studies import LeaderboardConfig
from d3m_ray.training.settings import TrainingConfig

if __name__ == "__main__":
    run_leaderboard_sweep(
        "Rank attribution methods by how well they predict retraining, by what removal by them does, and by seconds.",
        LeaderboardConfig(
            ExperimentConfig(
                corpus=Hatexplain(),
                # All but the two reference libraries, which are slow and give what trak and ekfac give.
                methods=(
                    *("trak", "ekfac", "metagradient", "tracin", "gradcos"),
                    *("embedding", "bm25", "loss", "random"),
                ),
                # It takes hundreds of fits: three epochs each, at a rate that suits that.
                training=TrainingConfig(num_epochs=3, learning_rate=5e-5, final_model="last"),
            )
        ),
    )
