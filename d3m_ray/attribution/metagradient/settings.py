"""Settings of the methods that replay training."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class MetagradientConfig:
    """Settings of the metagradient and of TracIn, which replay training. They enter the alignment keys of these two."""

    per_group: Annotated[bool, arg(name="metagradient-per-group")] = False
    """Whether they score each group, one reverse pass each, or the weighed groups at once, by one."""
