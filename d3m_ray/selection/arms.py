"""Which train examples to remove: the arms of an experiment.

Shapes: N train examples, M removed ones, G groups, L labels; a cell is a (group, label). A selection is [M] int64
positions in the train split, ascending. An arm looks at train and val only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil

import numpy as np

from d3m_ray.attribution.registry import METHODS, Method
from d3m_ray.data.cells import balancing
from d3m_ray.errors import InputError
from d3m_ray.records import BINARY_LABELS, Examples, cells_of, read_only
from d3m_ray.rules import check

AUTO_SUFFIX = "_auto"
"""What the name of an Auto-D3M alignment adds to its attribution method's."""
BEST_SUFFIX = "_best"
"""What the name of an arm that takes another one's best number adds to that one's."""

ARM_SUFFIXES = (AUTO_SUFFIX, BEST_SUFFIX, "_heuristic", "_helpful")
"""What the arms that a method gives add to its name."""

MAJORITY_SHARE = 0.5  # of train: the best-served cells are those of lowest val loss that hold at least this much
# The streams of random removals differ by these; numpy reads [k, seed] and [k, seed, 0] as one seed, so none is 0.
_MAJORITY_STREAM, _CELL_STREAM, _GROUP_STREAM, _LABEL_STREAM = 1, 2, 3, 4


@dataclass(frozen=True, eq=False)
class Selection:
    """What an arm removes, and how that came about."""

    removed: np.ndarray
    """Positions, ascending."""
    spared: np.ndarray
    """The positions that would have gone but for the cell floors, and stay."""
    rounds: tuple[Mapping[str, int | str], ...] = ()
    """Of several rounds, for each that removed something: `num_removed` by then, and the `alignment_key` it read."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What arms may look at to choose: the train split's labels and groups, and what is known of train from val.

    Arrays are read-only: one arm's evidence is every arm's.
    """

    labels: np.ndarray
    """[N] int64."""
    groups: np.ndarray
    """[N] int64."""
    num_labels: int = len(BINARY_LABELS)
    """L."""
    alignments: Mapping[str, np.ndarray] = field(default_factory=dict)
    """[N] float64 by alignment name, those that were made already."""
    cell_losses: np.ndarray | None = None
    """[G, L] mean val loss under the base models, NaN where val has no such cell; None before they are trained."""
    cell_floors: np.ndarray | None = None
    """[G * L] int64: how many train examples each cell keeps at least, where an arm goes by alignment; None for no
    guard."""
    num_rounds: int = 1
    """In how many rounds an arm of a number goes by alignment."""
    over_rounds: Mapping[tuple[str, int], Selection] = field(default_factory=dict)
    """By arm and number removed, what went, of those whose rounds are all done; of several rounds only."""
    train: Examples | None = None
    """The train examples themselves, for arms that look at their ids or texts."""

    def __post_init__(self) -> None:
        for name in ("labels", "groups", "cell_losses", "cell_floors"):
            if (array := getattr(self, name)) is not None:
                object.__setattr__(self, name, read_only(array))
        object.__setattr__(self, "alignments", {name: read_only(array) for name, array in self.alignments.items()})

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def cells(self) -> np.ndarray:
        """[N] int64: each train example's cell."""
        return cells_of(self.groups, self.labels, self.num_labels)

    def may_go(self, alignment: np.ndarray) -> np.ndarray:
        """[N] bool: which examples can be removed, by ascending alignment, so that each cell keeps its floor.

        Of each cell all but the highest, as many as its floor; of equals, the last in train order stay.
        """
        if self.cell_floors is None:
            return np.ones(len(self), dtype=bool)
        by_cell = np.lexsort((alignment, self.cells))  # stable: of equals, the first in train order
        sizes = np.bincount(self.cells, minlength=len(self.cell_floors))
        places = np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of each within its cell
        free = np.zeros(len(self), dtype=bool)
        free[by_cell] = places < np.repeat(sizes - self.cell_floors, sizes)
        return free


def cell_floors(cells: np.ndarray, num_cells: int, floor: int | str) -> np.ndarray:
    """[C] int64: how many examples each cell keeps at least, of a count or a share such as `10%`, rounded up.

    `cells` is [N]. A cell of fewer examples than the count keeps all that it has.
    """
    sizes = np.bincount(cells, minlength=num_cells)
    if isinstance(floor, int):
        return np.minimum(floor, sizes)
    share = Fraction(floor.removesuffix("%")) / 100  # exact: 0.1 * 30 is above 3
    return np.array([ceil(share * size) for size in sizes.tolist()], dtype=np.int64)


def lowest(evidence: Evidence, alignment: np.ndarray, num_removed: int) -> np.ndarray:
    """The `num_removed` examples of lowest alignment that may go; of equals, the first in train order."""
    order = np.argsort(alignment, kind="stable")
    return np.sort(order[evidence.may_go(alignment)[order]][:num_removed])


def below_zero(evidence: Evidence, alignment: np.ndarray) -> np.ndarray:
    """Every example whose alignment is negative (the D3M heuristic, Jain et al. 2024, section 4) and that may go."""
    return np.flatnonzero((alignment < 0) & evidence.may_go(alignment))


def random_subset(num_train: int, num_removed: int, seed: int) -> np.ndarray:
    """`num_removed` examples drawn without replacement, a stream of its own for each (num_removed, seed)."""
    rng = np.random.default_rng([num_removed, seed])
    return np.sort(rng.choice(num_train, size=num_removed, replace=False))


def random_majority(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
    """`num_removed` examples drawn from the best-served cells only.

    These are the cells of lowest val loss that together hold half of train, or `num_removed` where that is more.
    """
    assert evidence.cell_losses is not None, "an arm that reads cell losses waits for them"
    losses = evidence.cell_losses.ravel()
    enough = max(num_removed, MAJORITY_SHARE * len(evidence))
    sizes = np.bincount(evidence.cells, minlength=len(losses))
    order = np.argsort(losses, kind="stable")  # NaN, a cell that val lacks, comes last
    num_cells = int(np.searchsorted(np.cumsum(sizes[order]), enough)) + 1
    candidates = np.flatnonzero(np.isin(evidence.cells, order[:num_cells]))
    rng = np.random.default_rng([num_removed, seed, _MAJORITY_STREAM])
    return np.sort(rng.choice(candidates, size=num_removed, replace=False))


@dataclass(frozen=True)
class Arm:
    """One line of the figure: what an arm removes, or how else it trains."""

    select: Callable[[Evidence, int, int], np.ndarray]
    """(evidence, num_removed, seed) -> selection."""
    alignment: str | None = None
    """The alignment that it reads: an attribution method's name, with `AUTO_SUFFIX` where over pseudo-groups."""
    reads_cell_losses: bool = False
    """Whether it waits for the base models' val losses."""
    chooses_number: bool = False
    """Whether the rule decides how many examples go, so that --num-removed does not apply."""
    best_of: str | None = None
    """The arm whose number of highest val target this one takes, once that one's trials are there: `best_number`."""
    recipe: str = "erm"
    """How its models are trained, a name of `registry.RECIPES`."""

    @property
    def goes_in_rounds(self) -> bool:
        """Whether it removes a number by alignment, which can be done in rounds."""
        return self.alignment is not None and not self.chooses_number

    def can_select(self, evidence: Evidence) -> bool:
        """Whether all that it reads is there; of several rounds, for the first."""
        has_alignment = self.alignment is None or self.alignment in evidence.alignments
        return has_alignment and (not self.reads_cell_losses or evidence.cell_losses is not None)

    def spared(self, evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
        """The examples that would go but for the cell floors, and stay: positions, ascending."""
        if self.alignment is None or evidence.cell_floors is None:
            return np.zeros(0, dtype=np.int64)
        unguarded = self.select(replace(evidence, cell_floors=None), num_removed, seed)
        return np.setdiff1d(unguarded, self.select(evidence, num_removed, seed))


def _alignment_arms(alignment: str) -> dict[str, Arm]:
    """The lowest, those below zero, and the mirror: the most helpful, whose removal should hurt."""
    return {
        alignment: Arm(lambda e, k, seed: lowest(e, e.alignments[alignment], k), alignment),
        f"{alignment}_heuristic": Arm(
            lambda e, k, seed: below_zero(e, e.alignments[alignment]), alignment, chooses_number=True
        ),
        f"{alignment}_helpful": Arm(lambda e, k, seed: lowest(e, -e.alignments[alignment], k), alignment),
    }


def _best_arm(method: str, alignment: str | None) -> Arm:
    """The arm that takes the best number of another; the base models weigh the groups of its target."""
    return Arm(_chosen_later, alignment, reads_cell_losses=True, chooses_number=True, best_of=method)


def _chosen_later(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
    raise AssertionError("the best number is chosen by the fits of another arm")


def _training_arm(recipe: str) -> Arm:
    return Arm(lambda e, k, seed: np.zeros(0, dtype=np.int64), chooses_number=True, recipe=recipe)


def _balanced_arm(parts: Callable[[Evidence], np.ndarray], stream: int) -> Arm:
    return Arm(lambda e, k, seed: balancing(parts(e), seed, stream), chooses_number=True)


def arms_of_method(method: Method) -> dict[str, Arm]:
    """The arms that an attribution method gives."""
    names = [method.name, *([f"{method.name}{AUTO_SUFFIX}"] if method.scores_queries and method.reads_queries else [])]
    by_alignment = {name: arm for alignment in names for name, arm in _alignment_arms(alignment).items()}
    return by_alignment | {f"{name}{BEST_SUFFIX}": _best_arm(name, name) for name in names}


ARMS: dict[str, Arm] = {
    **{
        name: arm for method in METHODS.values() if method.reads_queries for name, arm in arms_of_method(method).items()
    },
    "loss": Arm(lambda e, k, seed: lowest(e, e.alignments["loss"], k), "loss"),
    "random": Arm(lambda e, k, seed: random_subset(len(e), k, seed)),
    "random_majority": Arm(random_majority, reads_cell_losses=True),
    "balanced": _balanced_arm(lambda e: e.cells, _CELL_STREAM),
    "balanced_group": _balanced_arm(lambda e: e.groups, _GROUP_STREAM),
    "balanced_label": _balanced_arm(lambda e: e.labels, _LABEL_STREAM),
    f"loss{BEST_SUFFIX}": _best_arm("loss", "loss"),
    f"random{BEST_SUFFIX}": _best_arm("random", None),
    **{name: _training_arm(name) for name in ("balanced_sampling", "group_dro", "jtt", "dfr")},
}
"""The arms by method name, as --methods, the store and the figures name them."""


def can_select(method: str, evidence: Evidence, num_removed: int | None) -> bool:
    """Whether what an arm removes can be told: by what it reads, or since its rounds are done."""
    if ARMS[method].goes_in_rounds and evidence.num_rounds > 1:
        return (method, num_removed) in evidence.over_rounds
    return ARMS[method].can_select(evidence)


def selection_of(method: str, evidence: Evidence, num_removed: int, seed: int) -> Selection:
    """What an arm removes, where `can_select` says that it can be told."""
    arm = ARMS[method]
    if arm.goes_in_rounds and evidence.num_rounds > 1:
        return evidence.over_rounds[method, num_removed]
    return Selection(arm.select(evidence, num_removed, seed), arm.spared(evidence, num_removed, seed))


def check_best_arms(methods: Sequence[str], numbers: Sequence[int | str], seeds: Sequence[int], protocol: str) -> None:
    """Raises InputError where an arm that takes another one's best number would lack what it chooses by."""
    asked = [method for method in methods if ARMS[method].best_of is not None]
    if not asked:
        return
    first = asked[0]
    for method in asked:
        of = ARMS[method].best_of
        if of not in methods:
            raise InputError(f"{method} chooses among the trials of {of}: --methods names both; add {of}")
    rule = f"{first} compares removing some with removing nothing: --num-removed has 0 and another number"
    check(any(_is_zero(n) for n in numbers) and not all(_is_zero(n) for n in numbers), rule, numbers)
    check(len(set(seeds)) > 1, f"{first} compares over seeds: --seeds are two or more", seeds)
    if protocol == "thesis":
        raise InputError(f"{first} decides on val, and --protocol thesis aligns on test; leave one out")


def check_rounds(methods: Sequence[str], rounds: int) -> None:
    """Raises InputError where a number is to go in rounds that an arm chooses by itself, by an alignment."""
    if rounds > 1 and not any(ARMS[method].goes_in_rounds for method in methods):
        raise InputError(
            f"--rounds divides what goes by an alignment, received {rounds} and --methods {' '.join(methods)}, none of "
            "which removes a number by one; leave it out, or add trak or another"
        )
    ruled = [m for m in methods if ARMS[m].alignment is not None and ARMS[m].chooses_number and ARMS[m].best_of is None]
    if rounds > 1 and ruled:
        raise InputError(
            f"--rounds divides --num-removed, and {', '.join(ruled)} chooses its own number; leave it out, or --rounds"
        )


def _is_zero(number: int | str) -> bool:
    return number == 0 if isinstance(number, int) else float(number.removesuffix("%")) == 0
