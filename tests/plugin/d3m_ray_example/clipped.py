"""The recipe `clipped`, with a setting of its own, and an arm that trains by it what it leaves."""

from dataclasses import dataclass

import numpy as np

import d3m_ray as d3m


@dataclass(frozen=True)
class ClippedSettings:
    """Settings of clipped."""

    most: float = 1.0
    """Nats; a larger loss counts as this, so that a label that contradicts all others moves nothing."""


@d3m.recipe("clipped", settings=ClippedSettings)
def clipped(inputs: d3m.FitInputs) -> d3m.Fit:
    """The mean loss, of which no example has more than its share."""

    def mean_of_clipped(losses, positions):
        return losses.clamp(max=inputs.settings.most).mean()

    return inputs.fine_tune(d3m.Objective(batch_loss=mean_of_clipped))


@d3m.arm("oldest_clipped", recipe="clipped")
def oldest_clipped(evidence: d3m.Evidence, num_removed: int, seed: int) -> np.ndarray:
    """What stands first in train goes, and the rest is trained on by clipped losses."""
    return np.arange(num_removed)
