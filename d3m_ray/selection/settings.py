"""Settings of what goes: how scores become group alignment, and what limits and divides removal by it."""

from dataclasses import dataclass, fields
from typing import Literal

from d3m_ray.errors import InputError
from d3m_ray.records import QueryTarget
from d3m_ray.rules import check
from d3m_ray.selection.numbers import is_removal

GroupWeights = Literal["softmax", "loss", "uniform"]
Target = Literal["margin", "loss", "probability", "worst_loss"]
DEFAULT_TARGET: Target = "loss"


@dataclass(frozen=True)
class AlignmentConfig:
    """How scores become group alignment. All of it enters the alignment key."""

    group_weights: GroupWeights = "softmax"
    """softmax: exp(beta * val loss), normalised (the D3M paper); loss: the val loss (its code); uniform."""
    beta: float = 1.0
    """Inverse temperature of softmax weights, per nat."""
    target: Target = DEFAULT_TARGET
    """What removal should raise on val: each query's margin, minus its loss, or the probability of its true label (a
    soft accuracy); or, for worst_loss, minus a smooth maximum over the groups' losses, which weighs the groups too."""
    # Groups' losses lie .05 to .3 nats apart, and of 100 val examples one is known to about .05. At 10 the largest
    # weight was .22 of 13 groups of ToxiGen, .85 of 4 of HateXplain; at 1 all but uniform, at 20 noise names the group.
    worst_loss_beta: float = 10.0
    """Sharpness of worst_loss, per nat: a group of .1 nats more loss weighs e times as much at 10; 0 is the mean."""

    def __post_init__(self) -> None:
        check(self.beta >= 0, "--beta is at least 0", self.beta)
        check(self.worst_loss_beta >= 0, "--worst-loss-beta is at least 0", self.worst_loss_beta)
        self._check_no_contradiction()

    @property
    def query_target(self) -> QueryTarget:
        """What the target asks of each query: worst_loss asks what loss asks, and weighs the groups otherwise."""
        return "loss" if self.target == "worst_loss" else self.target

    def _check_no_contradiction(self) -> None:
        """Raises InputError where a setting was chosen that the target, or the weights, leave without effect."""
        if self.target == "worst_loss":
            rule = "--target worst_loss weighs the groups by itself, as sharply as --worst-loss-beta says"
            without_effect = dict.fromkeys(("group_weights", "beta"), (rule, "--target loss"))
        else:
            rule = f"--worst-loss-beta is for --target worst_loss, and this is {self.target}"
            without_effect = {"worst_loss_beta": (rule, "--target worst_loss")}
            if self.group_weights != "softmax":
                rule = f"--beta is for --group-weights softmax, and this is {self.group_weights}"
                without_effect["beta"] = rule, "--group-weights softmax"
        defaults = {field.name: field.default for field in fields(self)}
        for name, (rule, fix) in without_effect.items():
            if (value := getattr(self, name)) != defaults[name]:
                raise InputError(f"{rule}; received --{name.replace('_', '-')} {value}: leave it out, or take {fix}")


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
