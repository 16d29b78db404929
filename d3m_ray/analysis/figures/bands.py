"""Means over seeds with their intervals, of all arms and groups of a figure at once."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from d3m_ray.analysis.statistics import CONFIDENCE, MIN_VALUES

BAND_SENTENCE = (
    f"bands or bars are {CONFIDENCE:.0%} Student t intervals of the mean over seeds, from {MIN_VALUES} seeds on; "
    "of fewer, each seed is a point"
)


def mean_bands(rows: pd.DataFrame, by: Sequence[str], column: str) -> pd.DataFrame:
    """One row per group of `by`: those columns, `num_values`, `mean`, `low` and `high`.

    The bounds are those of `t_interval` (Student, 1908), NaN below `MIN_VALUES` values. Rows without a value are left
    out.
    """
    known = rows[rows[column].notna()]
    bands = known.groupby(list(by), sort=True)[column].agg(["count", "mean", "std"]).reset_index()
    counts = bands["count"].to_numpy()
    quantiles = stats.t.ppf(0.5 + CONFIDENCE / 2, np.maximum(counts - 1, 1))
    half = np.where(counts >= MIN_VALUES, quantiles * bands["std"] / np.sqrt(counts), np.nan)
    bands = bands.assign(num_values=counts, low=bands["mean"] - half, high=bands["mean"] + half)
    return bands[[*by, "num_values", "mean", "low", "high"]]
