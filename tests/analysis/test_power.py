import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from d3m_ray.analysis.power import beyond, num_seeds_needed, power_of_t, smallest_difference


@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
@pytest.mark.parametrize("num_pairs", [5, 6, 20])
def test_the_smallest_difference_is_that_of_statsmodels(num_pairs: int, level: float) -> None:
    expected = TTestPower().solve_power(nobs=num_pairs, alpha=level, power=0.8)
    assert smallest_difference(0.03, num_pairs, level) == pytest.approx(0.03 * expected, rel=1e-4)
    assert power_of_t(expected * np.sqrt(num_pairs), num_pairs, level) == pytest.approx(0.8, abs=1e-4)


@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
@pytest.mark.parametrize("deviation", [0.02, 0.03, 0.1])
def test_so_many_seeds_find_two_points(deviation: float, level: float) -> None:
    expected = TTestPower().solve_power(effect_size=0.02 / deviation, alpha=level, power=0.8)
    assert num_seeds_needed(deviation, level) == np.ceil(expected)


def test_the_test_set_bounds_what_seeds_can_find() -> None:
    assert smallest_difference(0.0, 6, shared_variance=1e-4) > smallest_difference(0.0, 6) == 0
    assert num_seeds_needed(0.02, shared_variance=0.01**2) == np.inf
    assert num_seeds_needed(0.03) < num_seeds_needed(0.03, shared_variance=0.005**2) < np.inf
    assert num_seeds_needed(0.0) == 5, "of fewer there is no interval"
    assert np.isnan(num_seeds_needed(np.nan))
    assert np.isnan(smallest_difference(0.1, 1))


@pytest.mark.parametrize("degrees", [4, 5, 7.3, 40, 1e6])
def test_the_law_is_students(degrees: float) -> None:
    for critical in (0.0, 1.0, 2.5, 6.0):
        found = beyond(critical, degrees, lambda z: 2 * stats.norm.sf(z))
        assert found == pytest.approx(2 * stats.t.sf(critical, degrees), rel=1e-4)
