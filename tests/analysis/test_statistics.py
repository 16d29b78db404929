from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from d3m_ray.analysis.statistics import Interval, bootstrap_interval, paired_differences, t_interval


def test_the_interval_holds_the_mean_and_is_the_same_every_time() -> None:
    values = np.random.default_rng(0).normal(size=20)
    interval = bootstrap_interval(values)
    assert interval == bootstrap_interval(values.tolist())
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low < interval.mean < interval.high
    standard_error = values.std() / np.sqrt(20)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_95_percent_of_intervals_hold_the_true_mean() -> None:
    generator = np.random.default_rng(1)
    held = [
        interval.low <= 3 <= interval.high for interval in map(bootstrap_interval, generator.normal(3, 1, (200, 40)))
    ]
    assert 0.89 <= np.mean(held) <= 0.99


@pytest.mark.parametrize("interval_of", [bootstrap_interval, t_interval])
def test_equal_values_have_an_interval_without_width(interval_of: Callable[..., Interval]) -> None:
    interval = interval_of([0.1] * 5)
    assert (interval.low, interval.mean, interval.high) == pytest.approx((0.1, 0.1, 0.1))


@pytest.mark.parametrize(
    ("values", "mean", "count"),
    [([0.1, 0.9], 0.5, 2), ([1, 2, 3, 4], 2.5, 4), ([0.7, np.nan, np.nan, np.nan, np.nan], 0.7, 1), ([], np.nan, 0)],
)
@pytest.mark.parametrize("interval_of", [bootstrap_interval, t_interval])
def test_fewer_than_five_values_have_no_interval(
    interval_of: Callable[..., Interval], values: list[float], mean: float, count: int
) -> None:
    interval = interval_of(values)
    np.testing.assert_equal([interval.mean, interval.low, interval.high], [mean, np.nan, np.nan])
    assert interval.num_values == count


def test_the_t_interval_is_that_of_a_t_test() -> None:
    values = np.random.default_rng(2).normal(0.03, 0.02, size=5)
    interval = t_interval([*values, np.nan])
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    by_hand = values.mean() - 2.7764451 * values.std(ddof=1) / np.sqrt(5)
    assert interval.low == pytest.approx(by_hand)
    narrower = bootstrap_interval(values)
    assert interval.low < narrower.low < narrower.high < interval.high


def test_a_paired_difference_uses_the_seeds_that_both_have() -> None:
    values = pd.Series({0: 1.0, 1: 5.0, 2: 9.0, 3: 100.0})
    reference = pd.Series({2: 7.0, 1: 4.0, 0: 0.0, 4: -100.0})
    assert paired_differences(values, reference).sort_index().to_dict() == {0: 1.0, 1: 1.0, 2: 2.0}
