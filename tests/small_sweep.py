"""A sweep of two arms that takes a second, for tests of what becomes of its store."""

from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.training.settings import TrainingConfig

SMALL = ExperimentConfig(
    corpus=Planted(num_train=40, num_val=16, num_test=16),
    model="tiny",
    methods=("trak", "random"),
    num_removed=(0, 5),
    seeds=(0,),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=TrakConfig(projection_dim=16),
)
