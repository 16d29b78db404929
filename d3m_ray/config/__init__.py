"""Every setting of an experiment, checked when constructed: the fields are the command line's flags."""

from d3m_ray.config.attribution import (
    DEFAULT_TARGET,
    AlignmentConfig,
    EkfacConfig,
    GroupWeights,
    MetagradientConfig,
    QueryTarget,
    Target,
    TrakConfig,
)
from d3m_ray.config.execution import ExecutionConfig
from d3m_ray.config.experiment import (
    FIRST_DRAW,
    MAX_NAME_LENGTH,
    ExperimentConfig,
    LdsConfig,
    Protocol,
    SubsetSeeds,
)
from d3m_ray.config.leaderboard import LeaderboardConfig
from d3m_ray.config.selection import SelectionConfig
from d3m_ray.config.training import FinalModel, Pairing, Precision, RobustConfig, TrainingConfig

__all__ = [
    "DEFAULT_TARGET",
    "FIRST_DRAW",
    "MAX_NAME_LENGTH",
    "AlignmentConfig",
    "EkfacConfig",
    "ExecutionConfig",
    "ExperimentConfig",
    "FinalModel",
    "GroupWeights",
    "LdsConfig",
    "LeaderboardConfig",
    "MetagradientConfig",
    "Pairing",
    "Precision",
    "Protocol",
    "QueryTarget",
    "RobustConfig",
    "SelectionConfig",
    "SubsetSeeds",
    "Target",
    "TrainingConfig",
    "TrakConfig",
]
