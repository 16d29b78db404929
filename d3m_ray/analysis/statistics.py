"""How sure a mean over seeds is: intervals, p values, and p values of many at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import ndtr, stdtr, stdtrit

CONFIDENCE = 0.95  # of every interval, unless its column says otherwise
MIN_VALUES = 5  # below, the percentile bootstrap resamples a handful of values: of two, its bounds are the two
NUM_RESAMPLES = 2000  # of the percentile bootstrap
RESAMPLING_SEED = 0  # the same values give the same interval in every report
MAX_ENUMERATED = 20  # values, of which all 2^n sign flips are tried
NUM_FLIPS = 20_000  # beyond
NORMAL_DEGREES = 1e9  # of freedom
ROUNDING = 1e-9  # relative: sums of the same values in another order are equal

Values = Sequence[float] | np.ndarray | pd.Series


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its confidence interval, NaN where there are too few values to tell them from."""

    mean: float
    low: float
    high: float
    num_values: int
    """How many values the mean is over, one per seed."""


def bootstrap_interval(values: Values) -> Interval:
    """Mean of the values with its 95% percentile bootstrap interval (Efron, 1979); NaN values are left out.

    Below `MIN_VALUES` values the bounds are NaN, with none the mean is too. Of a few seeds the interval is a rough
    guide: the percentile bootstrap of n values is narrow by a factor of about sqrt(1 - 1/n).
    """
    known, mean = _known(values)
    if len(known) < MIN_VALUES:
        return Interval(mean, float("nan"), float("nan"), len(known))
    bounds = stats.bootstrap(
        (known,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(RESAMPLING_SEED),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high), len(known))


def t_interval(values: Values) -> Interval:
    """Mean of the values with its 95% Student t interval (Student, 1908), for values that are near normal.

    As `bootstrap_interval` where there are too few; without width where all are equal.
    """
    known, mean = _known(values)
    if len(known) < MIN_VALUES:
        return Interval(mean, float("nan"), float("nan"), len(known))
    low, high = t_bounds(mean, standard_error(known), len(known) - 1)
    return Interval(mean, low, high, len(known))


def t_bounds(mean: float, standard_error: float, degrees: float) -> tuple[float, float]:
    """The 95% interval of a mean by Student's t of these degrees of freedom; infinite are normal."""
    half = stdtrit(min(degrees, NORMAL_DEGREES), (1 + CONFIDENCE) / 2) * standard_error
    return float(mean - half), float(mean + half)


def t_p_value(mean: float, standard_error: float, degrees: float) -> float:
    """Two-sided p of a mean that is zero in truth, by Student's t of these degrees of freedom; infinite are normal.

    Without any error: 1 of a mean of zero, 0 of another. NaN where one of them is NaN.
    """
    if np.isnan([mean, standard_error, degrees]).any():
        return float("nan")
    if standard_error == 0:
        return float(mean == 0)
    below = -abs(mean) / standard_error
    return float(2 * (ndtr(below) if np.isinf(degrees) else stdtr(degrees, below)))


def t_test(values: Values) -> float:
    """Two-sided p of Student's t test that the mean is zero; NaN below `MIN_VALUES` values."""
    known, mean = _known(values)
    if len(known) < MIN_VALUES:
        return float("nan")
    return t_p_value(mean, standard_error(known), len(known) - 1)


def standard_error(values: Values) -> float:
    """Of the mean of independent values; exactly 0 where all are equal, NaN of fewer than two."""
    known, _ = _known(values)
    if len(known) < 2:
        return float("nan")
    if np.ptp(known) <= ROUNDING * np.abs(known).max():
        return 0.0
    return float(known.std(ddof=1) / np.sqrt(len(known)))


def sign_flip_test(values: Values) -> float:
    """Two-sided p that the values are symmetric about zero: the share of sign flips whose sum is as far from zero.

    Exact over all 2^n flips up to `MAX_ENUMERATED` values, so never below 2 / 2^n; of more values over `NUM_FLIPS`
    seeded random flips and the values as they are (Phipson and Smyth, 2010). NaN below `MIN_VALUES` values.
    """
    known, _ = _known(values)
    if len(known) < MIN_VALUES:
        return float("nan")
    reached = np.abs(known.sum()) - ROUNDING * np.abs(known).sum()
    if len(known) > MAX_ENUMERATED:
        signs = np.random.default_rng(RESAMPLING_SEED).choice([-1.0, 1.0], size=(NUM_FLIPS, len(known)))
        return float((1 + (np.abs(signs @ known) >= reached).sum()) / (NUM_FLIPS + 1))
    sums = known[:1]  # a flip of all is as far from zero: the first keeps its sign
    for value in known[1:]:
        sums = np.concatenate([sums + value, sums - value])
    return float((np.abs(sums) >= reached).mean())


def holm(p_values: Values) -> np.ndarray:
    """The p values adjusted for how many there are (Holm, 1979), in their order; NaN is no test and stays NaN."""
    array = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(array)[: int((~np.isnan(array)).sum())]
    adjusted = np.full(len(array), np.nan)
    stepped = array[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted


def wilson_bounds(shares: Values, counts: Values) -> tuple[np.ndarray, np.ndarray]:
    """Low and high bounds of the 95% intervals of shares of so many examples each (Wilson, 1927).

    A share may be a mean over models that answer the same examples, whose number is not multiplied by the models'.
    """
    share, count = np.asarray(shares, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    z = stats.norm.ppf((1 + CONFIDENCE) / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)


def _known(values: Values) -> tuple[np.ndarray, float]:
    """The values that are no NaN, and their mean, NaN of none."""
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    return known, float(known.mean()) if len(known) else float("nan")
