"""How train examples are scored, and how scores become group alignment."""

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from d3m_ray.config.checks import check

GroupWeights = Literal["softmax", "loss", "uniform"]


@dataclass(frozen=True)
class TrakConfig:
    """Settings of TRAK, native or by the traker library. They enter the alignment keys of these two."""

    projection_dim: int = 1024
    """Dimensions that a gradient is projected to, a product of two near-equal factors (1024 = 32 x 32)."""
    damping: Annotated[float, arg(name="trak-damping")] = 1.0
    """Ridge on the Gram matrix, in means of its nonzero eigenvalues; needed where examples are not many times more."""
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
class AlignmentConfig:
    """How scores become group alignment. All of it enters the alignment key."""

    group_weights: GroupWeights = "softmax"
    """softmax: exp(beta * val loss), normalised (the D3M paper); loss: the val loss (its code); uniform."""
    beta: float = 1.0
    """Inverse temperature of softmax weights."""

    def __post_init__(self) -> None:
        check(self.beta >= 0, "--beta is at least 0", self.beta)
