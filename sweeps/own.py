"""A corpus of your own: any folder or file of CSV, TSV, Parquet or JSON lines, with any number of labels."""

from d3m_ray.commands.sweeps import run_sweep
from d3m_ray.data.own_options import Own
from d3m_ray.experiment.config import ExperimentConfig

if __name__ == "__main__":
    run_sweep(
        "Prune a corpus of your own by group alignment and retrain; --data names its folder or file.",
        ExperimentConfig(
            corpus=Own(),
            num_removed=(0, "5%", "10%", "20%"),
        ),
    )
