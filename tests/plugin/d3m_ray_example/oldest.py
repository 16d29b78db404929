"""The arm `oldest`."""

import numpy as np

import d3m_ray as d3m


@d3m.arm("oldest")
def oldest(evidence: d3m.Evidence, num_removed: int, seed: int) -> np.ndarray:
    """What stands first in train goes."""
    return np.arange(num_removed)
