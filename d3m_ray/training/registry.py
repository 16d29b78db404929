"""The recipes, ways to train a model, by name: what enters their keys, without loading what trains."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from d3m_ray.training.fine_tuning import Fit
    from d3m_ray.training.recipes import FitInputs

ERM = "erm"


@dataclass(frozen=True)
class Recipe:
    """All that is to be known of a way to train before it trains anything."""

    load: Callable[[], "Callable[[FitInputs], Fit]"]
    """Loads, with torch, what fits a model."""
    reads: tuple[str, ...] = ()
    """The fields of `RobustConfig` that it reads: they alone enter the keys of its fits."""
    version: str = "1"
    """Raised when the same settings train to other weights: older fits are not taken for new ones."""


def _in_recipes(name: str) -> "Callable[[], Callable[[FitInputs], Fit]]":
    """What loads the function of this name from `recipes`."""

    def load() -> "Callable[[FitInputs], Fit]":
        found: Callable[[FitInputs], Fit] = getattr(import_module("d3m_ray.training.recipes"), name)
        return found

    return load


RECIPES: Mapping[str, Recipe] = {
    ERM: Recipe(_in_recipes("erm")),
    "balanced_sampling": Recipe(_in_recipes("balanced_sampling")),
    "group_dro": Recipe(_in_recipes("group_dro"), ("dro_step_size",)),
    "jtt": Recipe(_in_recipes("jtt"), ("jtt_first_epochs", "jtt_upweight")),
    "dfr": Recipe(_in_recipes("dfr"), ("dfr_data", "dfr_inverse_l2")),
}
"""By the names that arms give in `Arm.recipe`; the store's column of them is `objective`."""
