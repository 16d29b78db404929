from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test, ttest_1samp
from statsmodels.stats.multitest import multipletests

from d3m_ray.analysis.statistics import (
    Interval,
    bootstrap_interval,
    holm,
    sign_flip_test,
    standard_error,
    t_bounds,
    t_interval,
    t_p_value,
    t_test,
    wilson_bounds,
)


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


@pytest.mark.parametrize("num_values", [5, 8, 12])
def test_sign_flips_are_all_tried(num_values: int) -> None:
    values = np.random.default_rng(num_values).normal(0.5, 1, num_values)
    expected = permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_test([*values, np.nan]) == pytest.approx(expected)
    by_hand = [abs(np.dot(signs, values)) >= abs(values.sum()) - 1e-12 for signs in product([1, -1], repeat=num_values)]
    assert sign_flip_test(values) == pytest.approx(np.mean(by_hand))


def test_twenty_values_are_enumerated_and_more_are_drawn_never_to_zero() -> None:
    assert sign_flip_test(np.arange(1, 21)) == 2 / 2**20
    assert sign_flip_test(np.arange(1, 22)) == 1 / 20_001
    values = np.random.default_rng(3).normal(0.2, 1, 30)
    assert sign_flip_test(values) == sign_flip_test(values)
    assert sign_flip_test(values) == pytest.approx(ttest_1samp(values, 0).pvalue, abs=0.02)


def test_equal_differences_have_the_least_p_and_none_have_1() -> None:
    equal = np.array([0.7, 0.8, 0.9, 0.6, 0.75]) - (np.array([0.7, 0.8, 0.9, 0.6, 0.75]) - 0.1)  # but for rounding
    assert (sign_flip_test(equal), t_test(equal), standard_error(equal)) == (2 / 32, 0.0, 0.0)
    assert (sign_flip_test([0.0] * 6), t_test([0.0] * 6)) == (1.0, 1.0)


@pytest.mark.parametrize("test", [sign_flip_test, t_test])
def test_below_five_values_there_is_no_p(test: Callable[..., float]) -> None:
    assert np.isnan(test([1.0, 2.0, 3.0, 4.0]))
    assert np.isnan(test([1.0, 2.0, 3.0, 4.0, np.nan]))


def test_the_p_of_a_mean_is_students_and_normal_at_infinite_degrees() -> None:
    values = np.random.default_rng(4).normal(0.3, 1, 9)
    assert t_test(values) == pytest.approx(ttest_1samp(values, 0).pvalue)
    assert t_p_value(1.96, 1, np.inf) == pytest.approx(0.05, abs=1e-4)
    assert t_bounds(0, 1, np.inf) == pytest.approx((-1.95996, 1.95996), abs=1e-4)
    assert np.isnan(t_p_value(0.1, np.nan, 4))


def test_holm_is_that_of_statsmodels_and_leaves_out_what_is_no_test() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005, 0.9, 0.04]
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), expected)
    adjusted = holm([np.nan, *p_values, np.nan])
    np.testing.assert_allclose(adjusted[1:-1], expected)
    assert np.isnan(adjusted[[0, -1]]).all()
    assert len(holm([])) == 0


@pytest.mark.parametrize(("right", "count"), [(0, 10), (10, 10), (7, 10), (431, 450), (1, 3)])
def test_wilsons_bounds_are_scipys(right: int, count: int) -> None:
    expected = binomtest(right, count).proportion_ci(method="wilson")
    low, high = wilson_bounds([right / count], [count])
    assert (low[0], high[0]) == pytest.approx((expected.low, expected.high), abs=1e-12)
