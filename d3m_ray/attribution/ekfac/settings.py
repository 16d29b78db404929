"""Settings of EK-FAC."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from d3m_ray.rules import check


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
