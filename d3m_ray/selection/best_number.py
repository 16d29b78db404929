"""Which number removed an arm is used with: by its gain on val over removing nothing, paired by seed; 0 is a choice.

Shapes: Q val examples, G groups, S seeds, K numbers removed above 0.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from scipy.stats import t as student

from d3m_ray.selection.settings import AlignmentConfig

LEVEL = 0.05  # of taking any number above 0 where none raises the target
MIN_PAIRS = 2  # of which a mean has a standard error


def val_target(margins: np.ndarray, groups: np.ndarray, weights: np.ndarray, config: AlignmentConfig) -> float:
    """What removal should raise, of one model, given its val margins [Q], their groups [Q] and the group weights [G].

    It is what alignment is the gradient of: the weighted sum over groups of the mean of f over the group's examples,
    f being the target's function of a margin (`attribution.targets`). Of `worst_loss`, minus the smooth maximum of the
    groups' mean losses, log(mean_g exp(beta L_g)) / beta; its weights follow from it.
    """
    import torch

    from d3m_ray.attribution.targets import target_values

    values = target_values(torch.from_numpy(margins.astype(np.float64)), config.query_target).numpy()
    means = np.bincount(groups, weights=values, minlength=len(weights)) / np.bincount(groups, minlength=len(weights))
    if config.target != "worst_loss":
        return float(weights @ means)
    beta = config.worst_loss_beta
    return float(-(logsumexp(-beta * means) - np.log(len(means))) / beta if beta else means.mean())


@dataclass(frozen=True, eq=False)
class NumberChoice:
    """A choice, and what it rests on; a gain is in units of the target."""

    number: int
    """0 where no number is shown to raise the target."""
    mean_gains: np.ndarray
    """[K] float64: mean over seeds of the target less that of removing nothing under the same seed; NaN of no pair."""
    lower_bounds: np.ndarray
    """[K] float64: one-sided, all K at once; NaN below `MIN_PAIRS` pairs."""


def choose_number(numbers: np.ndarray, gains: np.ndarray) -> NumberChoice:
    """The number of largest mean gain among those whose lower bound is above 0; of equals the smallest; else 0.

    `numbers` is [K], `gains` [S, K], NaN where one of the two fits is missing. The bound is Student's of the paired
    differences at the level 5% / K: many comparisons with one control (Dunnett, 1955), by the inequality of Bonferroni
    (Dunn, 1961), which holds however the numbers' gains hang together and differ in variance. So where removal raises
    the target at no number, one is taken in 5% of experiments at most, as far as seeds make the difference.
    """
    num_pairs = (~np.isnan(gains)).sum(axis=0)
    means, bounds = np.full(len(numbers), np.nan), np.full(len(numbers), np.nan)
    for place, of_number in enumerate(gains.T):
        known = of_number[~np.isnan(of_number)]
        if len(known):
            means[place] = known.mean()
        if len(known) >= MIN_PAIRS:
            error = known.std(ddof=1) / np.sqrt(len(known))
            bounds[place] = means[place] - student.isf(LEVEL / len(numbers), num_pairs[place] - 1) * error
    raising = np.flatnonzero(bounds > 0)
    best = min(raising, key=lambda place: (-means[place], numbers[place]), default=None)
    return NumberChoice(0 if best is None else int(numbers[best]), means, bounds)
