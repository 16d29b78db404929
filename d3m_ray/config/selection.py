"""What limits and divides the removal of train examples by their alignment."""

from dataclasses import dataclass

from d3m_ray.config.checks import check
from d3m_ray.selection import is_removal


@dataclass(frozen=True)
class SelectionConfig:
    """How arms that read an alignment remove train examples."""

    cell_floor: int | str = "10%"
    """The least that each cell (group and label) keeps of its train examples where an arm goes by alignment: a count,
    or a share of the cell, rounded up. What it spares stays, and the next lowest elsewhere go instead. 0 switches it
    off."""
    rounds: int = 1
    """In how many rounds an arm that goes by alignment removes its number: after each but the last, the base models are
    trained again without what went, and what is left is scored by them. Each round beyond the first costs the fits of
    --num-checkpoints and the scores, for each such arm and number."""

    def __post_init__(self) -> None:
        rule = "--cell-floor is a count from 0, or a share of each cell below 100%, such as 10%"
        check(is_removal(self.cell_floor), rule, self.cell_floor)
        check(self.rounds >= 1, "--rounds is at least 1", self.rounds)
