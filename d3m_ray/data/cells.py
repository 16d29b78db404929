"""Cells (group and label) cut to one size, at random."""

import numpy as np


def balancing(parts: np.ndarray, seed: int, stream: int) -> np.ndarray:
    """What goes, at random, so that every part that has examples keeps as many as the smallest; `parts` is [N]."""
    rng = np.random.default_rng([0, seed, stream])
    names, sizes = np.unique(parts, return_counts=True)
    removed = [
        rng.choice(np.flatnonzero(parts == name), size=size - sizes.min(), replace=False)
        for name, size in zip(names, sizes, strict=True)
    ]
    return np.sort(np.concatenate(removed))
