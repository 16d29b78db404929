"""The recipes by name: what each reads, and what enters its keys, without loading any of them.

Flags, keys and arms read this; `Recipe.load` loads what trains, with torch, when the first model is fitted.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from d3m_ray.training.settings import RobustConfig

if TYPE_CHECKING:
    from d3m_ray.training.recipes import FitInputs, Train

ERM = "erm"


@dataclass(frozen=True)
class Recipe:
    """A way to train: all that is to be known of it before it trains anything."""

    summary: str
    """How it trains, in a line."""
    load: Callable[[], "Train"]
    """A function of a module or a partial one of it: it travels to the workers."""
    reads: tuple[str, ...] = ()
    """The fields of `RobustConfig` that it reads: they alone enter the keys of its fits."""
    version: str = "1"
    """Raised when the same settings train to other weights: older fits are not taken for new ones."""
    settings: Any = None
    """Of a plug-in's recipe, its own settings, all of which enter the keys of its fits: those by default in `RECIPES`,
    those of the run in a `TrialContext`."""
    of_plugin: bool = False
    """Whether a plug-in brought it: it may train on less than it is given, so --pairing enters all of its keys."""

    def read_settings(self, robust: RobustConfig) -> dict[str, Any]:
        """By name the settings that its fits depend on."""
        if self.settings is not None:
            return asdict(self.settings)
        return {name: getattr(robust, name) for name in self.reads}

    def fit(self, inputs: "FitInputs") -> Any:
        """Train the model of the inputs; what `fine_tuning.Fit` says of it."""
        return self.load()(inputs)


def _in_recipes(name: str) -> "Train":
    """A function of `recipes`."""
    train: Train = getattr(import_module("d3m_ray.training.recipes"), name)
    return train


RECIPES: dict[str, Recipe] = {
    ERM: Recipe("the mean loss, plainly", partial(_in_recipes, "erm")),
    "balanced_sampling": Recipe("batches of equal shares of the cells", partial(_in_recipes, "balanced_sampling")),
    "group_dro": Recipe("Group DRO over cells", partial(_in_recipes, "group_dro"), ("dro_step_size",)),
    "jtt": Recipe(
        "Just Train Twice: upweight what a first model got wrong",
        partial(_in_recipes, "jtt"),
        ("jtt_first_epochs", "jtt_upweight"),
    ),
    "dfr": Recipe(
        "DFR: the last layer refitted to balanced cells",
        partial(_in_recipes, "dfr"),
        ("dfr_data", "dfr_inverse_l2"),
        version="2",
    ),
}
"""By the names that arms give in `Arm.recipe`; the store's column of them is `objective`."""
