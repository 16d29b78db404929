"""Settings of TRAK."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from d3m_ray.rules import check


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
