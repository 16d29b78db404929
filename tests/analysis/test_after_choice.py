import numpy as np
import pandas as pd
import pytest
from scipy import stats

from d3m_ray.analysis.after_choice import choice_correlation, p_after_choice

NUM_SEEDS, NUM_RUNS = 6, 4000


def test_without_a_choice_or_without_luck_the_p_is_students() -> None:
    for numbers, correlation in ((1, 0.9), (8, 0.0), (8, -0.5)):
        expected = 2 * stats.t.sf(2.7, 5)
        assert p_after_choice(2.7, 5, numbers, correlation) == pytest.approx(expected, rel=1e-4)
    assert p_after_choice(0.0, 5, 8, 0.7) == pytest.approx(1)
    assert np.isnan(p_after_choice(np.nan, 5, 3, 0.5))


def test_the_sign_of_a_ratio_does_not_matter() -> None:
    assert p_after_choice(-2.7, 5, 3, 0.5) == p_after_choice(2.7, 5, 3, 0.5) > 2 * stats.t.sf(2.7, 5)


@pytest.mark.parametrize(("num_numbers", "val_noise"), [(3, 0.0), (8, 0.0), (8, 1.0)])
def test_an_arm_without_effect_is_claimed_at_the_level(num_numbers: int, val_noise: float) -> None:
    """Arms and random removal are alike; a fit's luck is the same on val and test but for noise."""
    rng = np.random.default_rng(num_numbers)
    luck = rng.normal(size=(2, NUM_RUNS, NUM_SEEDS, num_numbers))
    val = luck[0] + val_noise * rng.normal(size=luck[0].shape)
    differences = luck[0] - luck[1]
    chosen = val.mean(axis=1).argmax(axis=1)
    of_chosen = np.take_along_axis(differences, chosen[:, None, None], axis=2)[:, :, 0]
    ratios = of_chosen.mean(axis=1) / stats.sem(of_chosen, axis=1)
    correlation = 1 / np.sqrt(2 * (1 + val_noise**2))
    # p falls with the ratio: the ratio at which it is 5% is found once
    grid = np.linspace(2, 6, 41)
    critical = grid[
        [p_after_choice(ratio, NUM_SEEDS - 1, num_numbers, correlation) <= 0.05 for ratio in grid].index(True)
    ]
    assert np.mean(np.abs(ratios) >= critical) == pytest.approx(0.05, abs=0.01)
    frames = [pd.DataFrame(of) for of in val[:300]], [pd.DataFrame(of) for of in differences[:300]]
    assert choice_correlation(*frames) == pytest.approx(correlation, abs=0.02)


def test_choosing_without_allowing_for_it_claims_too_much() -> None:
    luck = np.random.default_rng(0).normal(size=(2, NUM_RUNS, NUM_SEEDS, 8))
    chosen = luck[0].mean(axis=1).argmax(axis=1)
    differences = np.take_along_axis(luck[0] - luck[1], chosen[:, None, None], axis=2)[:, :, 0]
    assert np.mean(stats.ttest_1samp(differences, 0, axis=1).pvalue <= 0.05) > 0.08


def test_what_tells_nothing_of_luck_is_no_correlation() -> None:
    one_number = pd.DataFrame({50: [0.1, 0.2, 0.3]})
    assert choice_correlation([one_number], [one_number]) == 0
    assert choice_correlation([], []) == 0
    rising = pd.DataFrame({50: [0.1, 0.2, 0.3], 100: [0.3, 0.2, 0.1]})
    assert choice_correlation([rising], [-rising]) == 0, "negative"
    assert choice_correlation([rising], [rising]) > 0.9
    assert choice_correlation([rising], [rising * np.nan]) == 0
    shared = pd.DataFrame({50: [0.1, 0.2, 0.3], 100: [0.1, 0.2, 0.3]})
    assert choice_correlation([shared], [shared]) == 0, "what all numbers share decides no choice"
