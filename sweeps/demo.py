"""A small made-up corpus with known harmful examples and a tiny BERT: the whole way in a minute or two, offline."""

from d3m_ray.commands.sweeps import run_sweep
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.training.settings import TrainingConfig

if __name__ == "__main__":
    run_sweep(
        "Does removal by alignment find the planted harm? The whole engine on a made-up corpus.",
        ExperimentConfig(
            corpus=Planted(),
            model="tiny",
            store="results/demo",
            methods=("trak", "trak_heuristic", "random"),
            num_removed=(0, 30, 60, 90, 120),
            seeds=(0, 1, 2, 3, 4),  # the fewest for an interval
            training=TrainingConfig(num_epochs=3, learning_rate=1e-3, final_model="last"),
        ),
    )
