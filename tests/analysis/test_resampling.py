import numpy as np
import pandas as pd
import pytest

from d3m_ray.analysis.resampling import MEASURES, resample_test_set, shared_variance
from d3m_ray.analysis.statistics import RESAMPLING_SEED

EXAMPLES = pd.DataFrame(
    {"group": list("babbaabbabccb"), "label": [0, 1, 1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0]}, index=range(5, 18)
)


def test_every_draw_is_that_of_loops_over_cells_and_fits() -> None:
    rng = np.random.default_rng(1)
    is_correct = {name: rng.random(len(EXAMPLES)) < 0.7 for name in ("x", "y", "z")}
    resampled = resample_test_set(EXAMPLES, is_correct, num_resamples=40)
    rng = np.random.default_rng(RESAMPLING_SEED)
    positions = np.arange(len(EXAMPLES))
    of_examples = list(EXAMPLES.itertuples(index=False, name=None))
    cells = {cell: positions[[other == cell for other in of_examples]] for cell in sorted(set(of_examples))}
    draws = {cell: rows[rng.integers(len(rows), size=(40, len(rows)))] for cell, rows in cells.items()}
    for key, correct in is_correct.items():
        for b in range(40):
            of_cells = {cell: correct[drawn[b]] for cell, drawn in draws.items()}
            groups = {g: np.concatenate([of for (other, _), of in of_cells.items() if other == g]) for g in "abc"}
            expected = {
                "worst": min(of.mean() for of in groups.values()),
                "worst_cell": min(of.mean() for of in of_cells.values()),
                "all": np.concatenate(list(groups.values())).mean(),
            }
            for measure in MEASURES:
                found = resampled.accuracies[measure][b, resampled.columns[key]]
                assert found == pytest.approx(expected[measure]), (key, b, measure)
    differences = resampled.differences("all", [("x", "y"), ("z", "y")])
    all_of = resampled.accuracies["all"].astype(float)
    np.testing.assert_allclose(differences, all_of[:, [0, 2]] - all_of[:, [1]], atol=1e-6)


def test_what_seeds_share_is_their_mean_covariance() -> None:
    draws = np.random.default_rng(0).normal(size=(50, 4)) + np.random.default_rng(1).normal(size=(50, 1))
    covariance = np.cov(draws.T)
    assert shared_variance(draws) == pytest.approx(covariance[~np.eye(4, dtype=bool)].mean())
    assert shared_variance(draws * [1, -1, 1, -1]) == 0.0
    assert np.isnan(shared_variance(draws[:, :1]))


@pytest.mark.parametrize("is_shared", [True, False])
def test_the_finite_test_set_adds_what_examples_have_under_every_seed(is_shared: bool) -> None:
    """Half of the examples would be answered otherwise by an arm: the same under every seed, or others under each."""
    num_seeds, size = 8, 1000
    examples = pd.DataFrame({"group": ["a"] * size, "label": [0] * size})
    estimates = []
    for draw in range(12):
        rng = np.random.default_rng([draw, is_shared])
        effects = rng.choice([-1, 0, 1], p=[0.25, 0.5, 0.25], size=(1 if is_shared else num_seeds, size))
        effects = np.broadcast_to(effects, (num_seeds, size))
        is_correct = {f"arm {seed}": effects[seed] > 0 for seed in range(num_seeds)}
        is_correct |= {f"base {seed}": effects[seed] < 0 for seed in range(num_seeds)}
        resampled = resample_test_set(examples, is_correct, num_resamples=400)
        pairs = [(f"arm {seed}", f"base {seed}") for seed in range(num_seeds)]
        estimates.append(shared_variance(resampled.differences("worst", pairs)))
    expected = 0.5 / size  # the variance of the mean of the effects
    assert np.mean(estimates) == pytest.approx(expected if is_shared else 0, abs=0.1 * expected)


def test_it_is_the_same_every_time() -> None:
    is_correct = {"x": np.arange(len(EXAMPLES)) % 3 > 0}
    first, second = (resample_test_set(EXAMPLES, is_correct).accuracies["worst"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
