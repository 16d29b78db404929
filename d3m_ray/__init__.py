"""d3m_ray: debias a text corpus by training-data attribution, as one engine on Ray.

Run an experiment with `run`, see with `plan` what it would do, read what a store holds with the `read_...` functions.
Every name is loaded when it is first asked for: to read a store loads neither torch nor Ray.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from d3m_ray.version import __version__

if TYPE_CHECKING:
    from d3m_ray.analysis.reading import (
        read_alignments,
        read_examples,
        read_fits,
        read_removals,
        read_scores,
        read_trials,
    )
    from d3m_ray.attribution.ekfac.settings import EkfacConfig
    from d3m_ray.attribution.inputs import AttributionInputs
    from d3m_ray.attribution.metagradient.settings import MetagradientConfig
    from d3m_ray.attribution.trak.settings import TrakConfig
    from d3m_ray.commands.api import Plan, Result, plan, run
    from d3m_ray.commands.check import check_store
    from d3m_ray.commands.compact import compact_store
    from d3m_ray.data.checks import DataError
    from d3m_ray.data.hatexplain import Hatexplain
    from d3m_ray.data.own_options import Own
    from d3m_ray.data.planted import Planted
    from d3m_ray.data.toxigen import Toxigen
    from d3m_ray.errors import InputError, RunError
    from d3m_ray.experiment.config import ExperimentConfig
    from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
    from d3m_ray.plugins import arm, corpus, method, recipe
    from d3m_ray.pool import WorkerPool
    from d3m_ray.records import Examples, Splits
    from d3m_ray.selection.arms import Evidence
    from d3m_ray.selection.settings import AlignmentConfig, SelectionConfig
    from d3m_ray.store.check import StoreCheck
    from d3m_ray.store.compacted import Compaction
    from d3m_ray.store.errors import StoreError
    from d3m_ray.training.fine_tuning import Fit, Objective
    from d3m_ray.training.recipes import FitInputs
    from d3m_ray.training.settings import RobustConfig, TrainingConfig
    from d3m_ray.trials.settings import ExecutionConfig

_HOMES = {
    "analysis.reading": (
        *("read_alignments", "read_examples", "read_fits"),
        *("read_removals", "read_scores", "read_trials"),
    ),
    "attribution.ekfac.settings": ("EkfacConfig",),
    "attribution.inputs": ("AttributionInputs",),
    "attribution.metagradient.settings": ("MetagradientConfig",),
    "attribution.trak.settings": ("TrakConfig",),
    "commands.api": ("Plan", "Result", "plan", "run"),
    "commands.check": ("check_store",),
    "commands.compact": ("compact_store",),
    "data.checks": ("DataError",),
    "data.hatexplain": ("Hatexplain",),
    "data.own_options": ("Own",),
    "data.planted": ("Planted",),
    "data.toxigen": ("Toxigen",),
    "errors": ("InputError", "RunError"),
    "experiment.config": ("ExperimentConfig",),
    "experiment.studies": ("LdsConfig", "LeaderboardConfig"),
    "plugins": ("arm", "corpus", "method", "recipe"),
    "pool": ("WorkerPool",),
    "records": ("Examples", "Splits"),
    "selection.arms": ("Evidence",),
    "selection.settings": ("AlignmentConfig", "SelectionConfig"),
    "store.check": ("StoreCheck",),
    "store.compacted": ("Compaction",),
    "store.errors": ("StoreError",),
    "training.fine_tuning": ("Fit", "Objective"),
    "training.recipes": ("FitInputs",),
    "training.settings": ("RobustConfig", "TrainingConfig"),
    "trials.settings": ("ExecutionConfig",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AlignmentConfig",
    "AttributionInputs",
    "Compaction",
    "DataError",
    "EkfacConfig",
    "Evidence",
    "Examples",
    "ExecutionConfig",
    "ExperimentConfig",
    "Fit",
    "FitInputs",
    "Hatexplain",
    "InputError",
    "LdsConfig",
    "LeaderboardConfig",
    "MetagradientConfig",
    "Objective",
    "Own",
    "Plan",
    "Planted",
    "Result",
    "RobustConfig",
    "RunError",
    "SelectionConfig",
    "Splits",
    "StoreCheck",
    "StoreError",
    "Toxigen",
    "TrainingConfig",
    "TrakConfig",
    "WorkerPool",
    "__version__",
    "arm",
    "check_store",
    "compact_store",
    "corpus",
    "method",
    "plan",
    "read_alignments",
    "read_examples",
    "read_fits",
    "read_removals",
    "read_scores",
    "read_trials",
    "recipe",
    "run",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"d3m_ray.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
