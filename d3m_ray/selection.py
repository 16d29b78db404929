"""Which train examples to remove: the arms of an experiment.

Shapes: N train examples, M removed ones. A selection is [M] int64 positions in the train split, ascending.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


def lowest(alignment: np.ndarray, num_removed: int) -> np.ndarray:
    """The `num_removed` examples of lowest alignment; of equals, the first in train order."""
    return np.sort(np.argsort(alignment, kind="stable")[:num_removed])


def below_zero(alignment: np.ndarray) -> np.ndarray:
    """Every example whose alignment is negative (the D3M heuristic, Jain et al. 2024, section 4)."""
    return np.flatnonzero(alignment < 0)


def random_subset(num_train: int, num_removed: int, seed: int) -> np.ndarray:
    """`num_removed` examples drawn without replacement, a stream of its own for each (num_removed, seed)."""
    rng = np.random.default_rng([num_removed, seed])
    return np.sort(rng.choice(num_train, size=num_removed, replace=False))


@dataclass(frozen=True)
class Arm:
    """One line of the figure: how an arm chooses what it removes."""

    select: Callable[[int, np.ndarray | None, int, int], np.ndarray]
    """(number of train examples, alignment [N] or None, num_removed, seed) -> selection."""
    attribution: str | None = None
    """The attribution method whose alignment it reads; None where it reads none."""
    chooses_number: bool = False
    """Whether the rule decides how many examples go, so that --num-removed does not apply."""


ARMS: Mapping[str, Arm] = {
    "trak": Arm(lambda n, alignment, k, seed: lowest(_given(alignment), k), "trak"),
    "trak_heuristic": Arm(
        lambda n, alignment, k, seed: below_zero(_given(alignment)),
        "trak",
        chooses_number=True,
    ),
    "random": Arm(lambda n, alignment, k, seed: random_subset(n, k, seed)),
}
"""The arms by method name, as --methods, the store and the figures name them."""


def _given(alignment: np.ndarray | None) -> np.ndarray:
    assert alignment is not None, "an arm that names an attribution method is given its alignment"
    return alignment
