"""What so many seeds could have shown: the smallest difference, and the seeds that a given one would take."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import gammainccinv, gammaincinv, gammaln, ndtr

from d3m_ray.analysis.statistics import MIN_VALUES

POWER = 0.8  # Cohen's convention (1988)
SIGNIFICANCE = 0.05
SOUGHT_DIFFERENCE = 0.02
"""Of accuracy: two points."""
MAX_SEEDS = 100_000  # more is as good as never
NUM_POINTS = 500  # at which the law of the sample deviation is summed
MANY_DEGREES = 100_000  # of freedom: the normal law


def beyond(critical: float, degrees: float, tail: Callable[[np.ndarray], np.ndarray]) -> float:
    """P(|Z| / s > critical) where `tail(z)` is P(|Z| > z) and s an independent chi / sqrt(degrees), as in Student's t.

    Integrated over s; scipy's noncentral t is NaN far out.
    """
    if degrees > MANY_DEGREES:
        return float(tail(np.array(critical)))
    points, weights = _scales(degrees)
    return float(tail(critical * points) @ weights)


@lru_cache(maxsize=1024)
def _scales(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of chi / sqrt(degrees), and how much of its law each stands for by the trapezoid rule."""
    low, high = gammaincinv(degrees / 2, 1e-15), gammainccinv(degrees / 2, 1e-15)
    points = np.linspace(np.sqrt(2 * low / degrees), np.sqrt(2 * high / degrees), NUM_POINTS)
    logarithms = (degrees - 1) * np.log(points) - degrees * points**2 / 2
    factor = np.log(2) + degrees / 2 * np.log(degrees / 2) - gammaln(degrees / 2)
    weights = np.exp(logarithms + factor) * (points[1] - points[0])
    weights[[0, -1]] /= 2
    return points, weights


def power_of_t(effect: float, num_pairs: int, level: float = SIGNIFICANCE) -> float:
    """How likely a two-sided t test of n pairs is to reject where mean over standard error is `effect` in truth."""
    critical = stats.t.isf(level / 2, num_pairs - 1)
    return beyond(critical, num_pairs - 1, lambda z: ndtr(effect - z) + ndtr(-effect - z))


@lru_cache(maxsize=4096)
def needed_effect(num_pairs: int, level: float = SIGNIFICANCE) -> float:
    """The mean, in standard errors, that a two-sided t test of n pairs finds with 80% power; NaN below two pairs."""
    if num_pairs < 2:
        return float("nan")
    high = 2.0
    while power_of_t(high, num_pairs, level) < POWER:
        high *= 2
    return float(brentq(lambda effect: power_of_t(effect, num_pairs, level) - POWER, 0, high))


def smallest_difference(
    deviation: float, num_pairs: int, level: float = SIGNIFICANCE, shared_variance: float = 0.0
) -> float:
    """The smallest mean difference that a two-sided paired t test at this level finds with 80% power.

    `deviation` is the standard deviation of the paired differences over seeds, `shared_variance` what the finite test
    set adds to the variance of their mean, however many seeds there are.
    """
    return needed_effect(num_pairs, level) * float(np.sqrt(deviation**2 / num_pairs + shared_variance))


def num_seeds_needed(
    deviation: float,
    level: float = SIGNIFICANCE,
    shared_variance: float = 0.0,
    difference: float = SOUGHT_DIFFERENCE,
) -> float:
    """The fewest seeds, `MIN_VALUES` at least, with which a difference is found with 80% power.

    Infinite where no number of seeds suffices, since the test set is too small; NaN where a deviation is NaN.
    """

    def found(num_pairs: int) -> bool:
        return smallest_difference(deviation, num_pairs, level, shared_variance) <= difference

    if np.isnan(deviation) or np.isnan(shared_variance):
        return float("nan")
    if not found(MAX_SEEDS):
        return float("inf")
    low, high = MIN_VALUES - 1, MIN_VALUES
    while not found(high):
        low, high = high, min(2 * high, MAX_SEEDS)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return float(high)
