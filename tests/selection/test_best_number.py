"""The val target of a model, and the number removed that is best by it: against sums by hand and scipy's t test."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from d3m_ray.selection.alignment import group_weights
from d3m_ray.selection.best_number import choose_number, val_target
from d3m_ray.selection.settings import AlignmentConfig

MARGINS = np.array([0.5, -2.0, 3.0, 0.0, -40.0, 1.5], dtype=np.float32)
GROUPS = np.array([0, 1, 1, 0, 2, 2])
WEIGHTS = np.array([0.2, 0.5, 0.3])
FUNCTIONS = {
    "margin": lambda m: m,
    "loss": lambda m: -math.log1p(math.exp(-m)),
    "probability": lambda m: 1 / (1 + math.exp(-m)),
}


@pytest.mark.parametrize("target", FUNCTIONS)
def test_the_target_is_the_weighed_mean_of_a_function_of_the_margins(target):
    expected = 0.0
    for group, weight in enumerate(WEIGHTS):
        values = [FUNCTIONS[target](float(m)) for m, g in zip(MARGINS, GROUPS, strict=True) if g == group]
        expected += weight * sum(values) / len(values)
    assert val_target(MARGINS, GROUPS, WEIGHTS, AlignmentConfig(target=target)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.7, 10.0])
def test_the_worst_loss_is_a_smooth_maximum_whose_slopes_are_the_group_weights(beta):
    config = AlignmentConfig(target="worst_loss", worst_loss_beta=beta)
    margins, groups = np.array([0.3, -0.4, 1.1]), np.arange(3)

    def value(margins: np.ndarray) -> float:
        return val_target(margins, groups, WEIGHTS, config)

    losses = np.log1p(np.exp(-margins))
    low, high = -losses.max(), -losses.mean()
    assert low - 1e-12 <= value(margins) <= high + 1e-12
    slopes = [(value(margins + step) - value(margins - step)) / 2e-5 for step in 1e-5 * np.eye(3)]
    of_losses = np.array(slopes) * (1 + np.exp(margins))  # d margin by d loss, and the sign of minus a loss
    np.testing.assert_allclose(of_losses, group_weights(losses, config), rtol=1e-6)


def naive_choice(numbers: list[int], gains: np.ndarray) -> int:
    found = []
    for number, of_number in zip(numbers, gains.T, strict=True):
        known = of_number[~np.isnan(of_number)]
        if len(known) > 1 and ttest_1samp(known, 0, alternative="greater").pvalue < 0.05 / len(numbers):
            found.append((-known.mean(), number))
    return min(found)[1] if found else 0


def test_a_number_is_taken_where_its_gain_stands_among_all():
    rng = np.random.default_rng(0)
    numbers = [10, 50, 100]
    chosen = []
    for _ in range(300):
        gains = rng.normal(rng.choice([0.0, 1.0], size=3), rng.uniform(0.2, 1.5, 3), size=(5, 3))
        gains[rng.random((5, 3)) < 0.2] = np.nan
        choice = choose_number(np.array(numbers), gains)
        assert choice.number == naive_choice(numbers, gains)
        np.testing.assert_allclose(
            choice.mean_gains, [np.nanmean(g) if (~np.isnan(g)).any() else np.nan for g in gains.T]
        )
        chosen.append(choice.number)
    assert set(chosen) == {0, 10, 50, 100}


def test_of_equal_gains_the_smallest_number_is_taken():
    gains = np.array([[0.2, 0.2], [0.3, 0.3], [0.25, 0.25]])
    assert choose_number(np.array([50, 10]), gains).number == 10


def test_without_pairs_nothing_is_removed():
    for gains in (np.zeros((0, 0)), np.zeros((0, 2)), np.full((3, 2), np.nan), np.array([[9.0, 9.0]])):
        choice = choose_number(np.arange(1, gains.shape[1] + 1), gains)
        assert choice.number == 0
        assert np.isnan(choice.lower_bounds).all()


def test_where_nothing_helps_a_number_is_taken_once_in_twenty_at_most():
    """Of 2000 experiments of 4 numbers and 6 seeds, whose gains hang together by the model of nothing removed."""
    rng = np.random.default_rng(1)
    base, own = rng.normal(size=(2000, 6, 1)), rng.normal(size=(2000, 6, 4))
    taken = [choose_number(np.arange(1, 5), gains).number > 0 for gains in own - base]
    assert 0.01 < np.mean(taken) < 0.06
