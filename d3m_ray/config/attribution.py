"""How train examples are scored, and how scores become group alignment."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from tyro.conf import arg

from d3m_ray.config.checks import check
from d3m_ray.errors import InputError

GroupWeights = Literal["softmax", "loss", "uniform"]
QueryTarget = Literal["margin", "loss", "probability"]
"""What is asked of one val example: its margin, minus its loss, or the probability of its true label."""
Target = Literal["margin", "loss", "probability", "worst_loss"]
DEFAULT_TARGET: Target = "loss"


@dataclass(frozen=True)
class TrakConfig:
    """Settings of TRAK, native or by the traker library, and of gradcos, which reads the projection's alone. They enter
    the alignment keys of these three.
    """

    projection_dim: int = 1024
    """Dimensions that a gradient is projected to, a product of two near-equal factors (1024 = 32 x 32)."""
    damping: Annotated[float, arg(name="trak-damping")] = 1.0
    """Ridge on the Gram matrix, in means of its nonzero eigenvalues; `benchmarks/trak_damping.py` tunes it."""
    projection_seed: int = 0
    """Seed of the random projection."""

    def __post_init__(self) -> None:
        check(self.projection_dim >= 4, "--projection-dim is at least 4", self.projection_dim)
        check(self.damping >= 0, "--trak-damping is at least 0", self.damping)


@dataclass(frozen=True)
class EkfacConfig:
    """Settings of EK-FAC, native or by the kronfluence library. They enter the alignment keys of these two."""

    modules: Annotated[tuple[str, ...], arg(name="ekfac-modules")] = ()
    """Linear layers, or modules that hold some, by their dotted names; left out, every linear layer."""
    damping: Annotated[float, arg(name="ekfac-damping")] = 0.1
    """Added to a layer's corrected eigenvalues, in means of them."""
    label_seed: Annotated[int, arg(name="ekfac-label-seed")] = 0
    """Seed of the labels drawn from the model's own probabilities for the Fisher matrix."""

    def __post_init__(self) -> None:
        check(self.damping > 0, "--ekfac-damping is above 0", self.damping)


@dataclass(frozen=True)
class MetagradientConfig:
    """Settings of the metagradient and of TracIn, which replay training. They enter the alignment keys of these two."""

    per_group: Annotated[bool, arg(name="metagradient-per-group")] = False
    """Whether they score each group, one reverse pass each, or the weighed groups at once, by one."""


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
        for name, (rule, mend) in without_effect.items():
            if (value := getattr(self, name)) != defaults[name]:
                raise InputError(f"{rule}; received --{name.replace('_', '-')} {value}: leave it out, or take {mend}")
