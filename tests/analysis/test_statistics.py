import numpy as np
import pandas as pd
import pytest

from d3m_ray.analysis.statistics import bootstrap_interval, paired_difference


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


def test_two_values_bound_their_own_interval() -> None:
    interval = bootstrap_interval([1.0, 2.0])
    assert (interval.low, interval.mean, interval.high) == (1.0, 1.5, 2.0)


def test_equal_values_have_an_interval_without_width() -> None:
    interval = bootstrap_interval([0.5, 0.5, 0.5])
    assert (interval.low, interval.mean, interval.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("values", "mean", "count"), [([0.7], 0.7, 1), ([0.7, np.nan], 0.7, 1), ([], np.nan, 0)])
def test_fewer_than_two_values_have_no_interval(values: list[float], mean: float, count: int) -> None:
    interval = bootstrap_interval(values)
    np.testing.assert_equal([interval.mean, interval.low, interval.high], [mean, np.nan, np.nan])
    assert interval.num_values == count


def test_a_paired_difference_uses_the_seeds_that_both_have() -> None:
    values = pd.Series({0: 1.0, 1: 5.0, 2: 9.0, 3: 100.0})
    reference = pd.Series({2: 7.0, 1: 4.0, 0: 0.0, 4: -100.0})
    interval = paired_difference(values, reference)
    assert interval.num_values == 3
    assert interval.mean == pytest.approx((1 + 1 + 2) / 3)
    assert 1 <= interval.low <= interval.high <= 2, "pairing takes out what the seeds have in common"
