"""How sure a mean over seeds is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

CONFIDENCE = 0.95
MIN_VALUES = 5  # below, the percentile bootstrap resamples a handful of values: of two, its bounds are the two
NUM_RESAMPLES = 2000
RESAMPLING_SEED = 0  # the same values give the same interval in every report

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
    if np.ptp(known) == 0:
        return Interval(mean, mean, mean, len(known))
    low, high = stats.t.interval(CONFIDENCE, len(known) - 1, loc=mean, scale=stats.sem(known))
    return Interval(mean, float(low), float(high), len(known))


def paired_differences(values: pd.Series, reference: pd.Series) -> pd.Series:
    """Values minus reference for the seeds (or any labels, unique) that both have."""
    return (values - reference).dropna()


def _known(values: Values) -> tuple[np.ndarray, float]:
    """The values that are no NaN, and their mean, NaN of none."""
    array = np.asarray(values, dtype=np.float64)
    known = array[~np.isnan(array)]
    return known, float(known.mean()) if len(known) else float("nan")
