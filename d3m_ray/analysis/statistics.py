"""How sure a mean over seeds is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import bootstrap

CONFIDENCE = 0.95
NUM_RESAMPLES = 2000
RESAMPLING_SEED = 0  # the same values give the same interval in every report


@dataclass(frozen=True)
class Interval:
    """A mean with the bounds of its confidence interval, all NaN where there is nothing to tell them from."""

    mean: float
    low: float
    high: float
    num_values: int
    """How many values the mean is over, one per seed."""


def bootstrap_interval(values: Sequence[float] | np.ndarray | pd.Series) -> Interval:
    """Mean of the values with its 95% percentile bootstrap interval (Efron, 1979); NaN values are left out.

    With one value the bounds are NaN, with none the mean is too. Of a few seeds the interval is a rough guide: the
    percentile bootstrap of n values is narrow by a factor of about sqrt(1 - 1/n).
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    mean = float(known.mean()) if len(known) else float("nan")
    if len(known) < 2:
        return Interval(mean, float("nan"), float("nan"), len(known))
    bounds = bootstrap(
        (known,),
        np.mean,
        n_resamples=NUM_RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(RESAMPLING_SEED),
    ).confidence_interval
    return Interval(mean, float(bounds.low), float(bounds.high), len(known))


def paired_difference(values: pd.Series, reference: pd.Series) -> Interval:
    """Mean of values minus reference over the seeds (or any labels, unique) that both have, with its interval."""
    return bootstrap_interval((values - reference).dropna())
