"""How far the methods agree on which train examples help and which hurt."""

import warnings
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from d3m_ray.analysis.results import Results, once

COLUMNS = ["first", "second", "measure", "num_removed", "num_examples", "value", "by_chance"]
OVERLAP = "overlap"
CORRELATIONS: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "pearson": stats.pearsonr,
    "spearman": stats.spearmanr,
}


@once
def agreement_table(results: Results) -> pd.DataFrame:
    """One row per two alignments and measure: `first`, `second`, `measure`, `num_removed`, `value`, `by_chance`.

    `pearson` and `spearman` are the correlations of the two alignments, `overlap` is the share of the `num_removed`
    lowest of one that are among as many lowest of the other, for each number of the plan; it has chance give
    `num_removed` over `num_examples`, the correlations 0. Of equal alignments the first in train order is lower, as in
    removal. `value` is NaN where an alignment is the same for all examples, or is but for rounding.
    """
    numbers = sorted({trial.num_removed for trial in results.record.plan if trial.num_removed})
    rows = [
        {"first": first, "second": second, **row}
        for first, second in combinations(sorted(results.alignments), 2)
        for row in _agreement(*_paired(results, first, second), numbers)
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"num_removed": "Int64", "num_examples": "int64"})


def _paired(results: Results, first: str, second: str) -> tuple[np.ndarray, np.ndarray]:
    """Two alignments of the examples that both have, in train order."""
    one, other = (results.alignments[name].set_index("example_id")["alignment"] for name in (first, second))
    if one.index.equals(other.index):
        return one.to_numpy(), other.to_numpy()
    shared = one.index[one.index.isin(other.index)]
    return one[shared].to_numpy(), other[shared].to_numpy()


def _agreement(one: np.ndarray, other: np.ndarray, numbers: list[int]) -> Iterator[dict[str, Any]]:
    num_examples = len(one)
    for measure in CORRELATIONS:
        value = _correlation(measure, one, other)
        yield {"measure": measure, "num_examples": num_examples, "value": value, "by_chance": 0.0}
    is_ranked = num_examples > 0 and np.ptp(one) > 0 and np.ptp(other) > 0
    lowest, others_lowest = (np.argsort(values, kind="stable") for values in (one, other))
    for number in (number for number in numbers if number <= num_examples):
        num_common = len(np.intersect1d(lowest[:number], others_lowest[:number]))
        yield {
            "measure": OVERLAP,
            "num_removed": number,
            "num_examples": num_examples,
            "value": num_common / number if is_ranked else float("nan"),
            "by_chance": number / num_examples,
        }


def _correlation(measure: str, one: np.ndarray, other: np.ndarray) -> float:
    if len(one) < 2:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("error", stats.DegenerateDataWarning)
        try:
            return float(CORRELATIONS[measure](one, other).statistic)
        except stats.DegenerateDataWarning:
            return float("nan")
