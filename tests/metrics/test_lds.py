"""The linear datamodeling score against scipy's rank correlation and a plain bootstrap; it finds a linear model."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from d3m_ray.metrics.lds import (
    ceiling,
    ceiling_bound,
    fit_correlations,
    linear_datamodeling_scores,
    rank_correlations,
    resampled_counts,
)

NUM_SUBSETS, NUM_TRAIN, NUM_TARGETS = 30, 80, 6


def made(noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a linear model, subsets of half of train, and its outputs on these, with noise."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(NUM_TRAIN, NUM_TARGETS)).astype(np.float32)
    kept = np.argsort(rng.random((NUM_SUBSETS, NUM_TRAIN)), axis=1) < NUM_TRAIN // 2
    return scores, kept, kept @ scores + noise * rng.normal(size=(NUM_SUBSETS, NUM_TARGETS))


def test_each_target_has_the_rank_correlation_of_its_predictions():
    scores, kept, outputs = made(noise=4.0)
    outputs[:, 0] = outputs[:, 0].round(-1)  # many ties
    outputs[:, 1] = 2.5
    scores[:, 2] = 0.125
    result = linear_datamodeling_scores(scores, kept, outputs)
    predicted = np.array([[scores[row, t].sum(dtype=np.float64) for t in range(NUM_TARGETS)] for row in kept])
    varying = [0, 3, 4, 5]
    expected = [spearmanr(predicted[:, t], outputs[:, t]).statistic for t in varying]
    np.testing.assert_allclose(result.values[varying], expected, rtol=1e-12)
    for values in (result.values, result.low, result.high):
        assert np.isnan(values[[1, 2]]).all()
        assert np.isfinite(values[varying]).all()
    assert result.mean == pytest.approx(np.mean(expected), rel=1e-12)
    assert result.num_subsets == NUM_SUBSETS


def test_perfect_and_opposite_scores():
    scores, kept, outputs = made(noise=0.0)
    for sign in (1.0, -1.0):
        result = linear_datamodeling_scores(sign * scores, kept, np.exp(outputs / 10))
        for values in (result.values, result.low, result.high, result.mean, result.mean_low, result.mean_high):
            np.testing.assert_allclose(values, sign, rtol=1e-12)


@pytest.mark.parametrize(("num_subsets", "known"), [(9, False), (10, True)])
def test_few_subsets_have_no_interval(num_subsets, known):
    scores, kept, outputs = made(noise=4.0)
    result = linear_datamodeling_scores(scores, kept[:num_subsets], outputs[:num_subsets])
    assert np.isfinite([*result.values, result.mean]).all()
    assert (np.isfinite([*result.low, *result.high, result.mean_low, result.mean_high]) == known).all()


def test_unrelated_scores_have_an_interval_about_zero():
    _, kept, outputs = made(noise=1.0)
    unrelated = np.random.default_rng(9).normal(size=(NUM_TRAIN, NUM_TARGETS))
    result = linear_datamodeling_scores(unrelated, kept, outputs)
    assert abs(result.mean) < 0.2
    assert result.mean_low < 0 < result.mean_high


def test_the_bootstrap_is_the_plain_one_over_subsets():
    scores, kept, outputs = made(noise=4.0)
    outputs[:, 0] = outputs[:, 0].round(-1)
    result = linear_datamodeling_scores(scores, kept, outputs, num_resamples=60, seed=3)
    predicted = kept.astype(np.float64) @ scores.astype(np.float64)
    resampled = []
    for counts in resampled_counts(NUM_SUBSETS, 60, 3).T:
        drawn = np.repeat(np.arange(NUM_SUBSETS), counts.astype(int))
        assert len(drawn) == NUM_SUBSETS
        resampled.append([spearmanr(predicted[drawn, t], outputs[drawn, t]).statistic for t in range(NUM_TARGETS)])
    np.testing.assert_allclose(result.low, np.percentile(resampled, 2.5, axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.high, np.percentile(resampled, 97.5, axis=0), rtol=1e-12)
    means = np.mean(resampled, axis=1)
    np.testing.assert_allclose([result.mean_low, result.mean_high], np.percentile(means, [2.5, 97.5]), rtol=1e-12)


def test_resamples_are_drawn_with_replacement_and_the_same_each_time():
    counts = resampled_counts(50, 400, 0)
    assert (counts.sum(axis=0) == 50).all()
    assert abs((counts == 0).mean() - np.exp(-1)) < 0.01
    np.testing.assert_array_equal(counts, resampled_counts(50, 400, 0))
    assert (counts != resampled_counts(50, 400, 1)).any()


def test_a_resample_of_one_value_is_unknown_and_left_out():
    values = np.array([1.0, 2.0, 3.0])
    counts = np.array([[1, 3, 2], [1, 0, 1], [1, 0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(rank_correlations(values, values, counts), [1.0, np.nan, 1.0])
    scores = np.array([[1.0]] * 9 + [[4.0]])
    result = linear_datamodeling_scores(scores, np.eye(10, dtype=bool), scores)
    assert (result.low, result.high, result.mean_low) == (1.0, 1.0, 1.0)


def test_what_rounding_makes_of_equal_sums_is_not_ranked():
    rng = np.random.default_rng(0)
    kept = np.array([rng.permutation(3333) < 1666 for _ in range(30)])
    outputs = rng.normal(size=(30, 4))
    tenths = rng.integers(1, 4, size=3333)
    scores = np.stack([np.full(3333, 0.7), np.full(3333, 0.77), np.full(3333, 0.1), tenths / 10], axis=1)
    result = linear_datamodeling_scores(scores, kept, outputs, num_resamples=10)
    assert np.isnan(result.values[:3]).all(), "scores that are all alike predict nothing"
    assert result.values[3] == pytest.approx(spearmanr(kept @ tenths, outputs[:, 3]).statistic)


def test_no_target_that_varies_leaves_no_mean():
    scores, kept, outputs = made(noise=1.0)
    result = linear_datamodeling_scores(scores, kept, np.zeros_like(outputs))
    assert np.isnan([result.mean, result.mean_low, result.mean_high, *result.values]).all()


def test_many_subsets_keep_the_sums_exact():
    rng = np.random.default_rng(0)
    predicted, actual = rng.normal(size=(2, 1500))
    counts = np.ones((1500, 1), dtype=np.float32)
    found = rank_correlations(predicted, actual + predicted, counts)[0]
    assert found == pytest.approx(spearmanr(predicted, actual + predicted).statistic, rel=1e-6)


def test_the_interval_covers_the_score_of_many_subsets():
    """Of 40 measurements over 30 subsets, nearly all intervals of the mean hold what 3,000 subsets give."""
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(NUM_TRAIN, 2))

    def measure(num_subsets: int, num_resamples: int):
        kept = rng.random((num_subsets, NUM_TRAIN)) < 0.5
        outputs = kept @ scores + 4.0 * rng.normal(size=(num_subsets, 2))
        return linear_datamodeling_scores(scores, kept, outputs, num_resamples)

    truth = measure(3000, 1).mean
    assert 0.6 < truth < 0.8
    measured = [measure(30, 300) for _ in range(40)]
    covered = np.mean([result.mean_low <= truth <= result.mean_high for result in measured])
    assert covered >= 0.85
    assert np.mean([result.mean_high - result.mean_low for result in measured]) < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda s, k, o: (s[:-1], k, o), r"received \(79, 6\), \(30, 80\), \(30, 6\)", id="fewer scores"),
        pytest.param(lambda s, k, o: (s, k[:-1], o), "scores are", id="fewer subsets"),
        pytest.param(lambda s, k, o: (s, k, o[:, :-1]), "scores are", id="fewer targets"),
        pytest.param(lambda s, k, o: (s[:, 0], k, o[:, 0]), "scores are", id="one dimension"),
        pytest.param(lambda s, k, o: (s, k.astype(int), o), "received int64, not bool", id="counts"),
        pytest.param(lambda s, k, o: (s, k[:2], o[:2]), "at least 3 subsets, received 2", id="two subsets"),
        pytest.param(lambda s, k, o: (s, k, np.where(o > 0, np.nan, o)), "finite", id="nan"),
        pytest.param(lambda s, k, o: (np.where(s > 0, np.inf, s), k, o), "finite", id="infinity"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        linear_datamodeling_scores(*change(*made(noise=1.0)))


def made_fits(reliability: float, num_subsets: int, num_fits: int, num_targets: int = 3) -> np.ndarray:
    """Outputs [M, F, T] of which two fits of a subset correlate as much as named."""
    rng = np.random.default_rng(5)
    of_subsets = np.sqrt(reliability) * rng.normal(size=(num_subsets, 1, num_targets))
    return of_subsets + np.sqrt(1 - reliability) * rng.normal(size=(num_subsets, num_fits, num_targets))


def test_fits_of_a_subset_agree_as_their_pairs_correlate():
    outputs = made_fits(0.5, NUM_SUBSETS, 3)
    outputs[:, :, 0] = outputs[:, :, 0].round()  # ties
    found = fit_correlations(outputs, num_resamples=40, seed=2)

    def of_pairs(rows) -> np.ndarray:
        pairs = [(0, 1), (0, 2), (1, 2)]
        return np.array(
            [
                np.mean([spearmanr(outputs[rows, a, t], outputs[rows, b, t]).statistic for a, b in pairs])
                for t in range(3)
            ]
        )

    np.testing.assert_allclose(found.values, of_pairs(np.arange(NUM_SUBSETS)), rtol=1e-12)
    drawn = [np.repeat(np.arange(NUM_SUBSETS), c.astype(int)) for c in resampled_counts(NUM_SUBSETS, 40, 2).T]
    resampled = np.array([of_pairs(rows) for rows in drawn])
    np.testing.assert_allclose(found.low, np.percentile(resampled, 2.5, axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.resampled_means, resampled.mean(axis=1), rtol=1e-12)
    scores, kept, lds_outputs = made(noise=1.0)
    of_lds = linear_datamodeling_scores(scores, kept, lds_outputs, num_resamples=40, seed=2)
    assert of_lds.resampled_means.shape == found.resampled_means.shape, "the same resamples, so differences are paired"


@pytest.mark.parametrize(("reliability", "num_fits"), [(0.11, 2), (0.5, 2), (0.5, 5), (0.9, 1)])
def test_the_ceiling_is_what_a_perfect_prediction_reaches(reliability, num_fits):
    """Of 20,000 subsets, the correlation of the noiseless outcome with the mean over the fits, to two digits."""
    rng = np.random.default_rng(3)
    truth = np.sqrt(reliability) * rng.normal(size=20_000)
    fits = truth[:, None] + np.sqrt(1 - reliability) * rng.normal(size=(20_000, max(num_fits, 2)))
    between = spearmanr(fits[:, 0], fits[:, 1]).statistic
    reached = spearmanr(truth, fits[:, :num_fits].mean(axis=1)).statistic
    assert ceiling(np.array([between]), num_fits)[0] == pytest.approx(reached, abs=0.02)


def test_an_estimate_from_few_subsets_holds_the_true_ceiling():
    found = fit_correlations(made_fits(0.5, 100, 2, 1))
    low, high = ceiling_bound(found.low, 2)[0], ceiling_bound(found.high, 2)[0]
    assert low < np.sqrt(2 * 0.5 / 1.5) < high
    assert low < ceiling(found.values, 2)[0] < high


def test_fits_that_do_not_agree_have_no_ceiling():
    np.testing.assert_array_equal(ceiling(np.array([-0.4, 0.0, np.nan]), 2), [np.nan] * 3)
    np.testing.assert_array_equal(ceiling_bound(np.array([-0.4, 0.0, np.nan]), 2), [0, 0, np.nan])
    assert ceiling_bound(np.array([0.28]), 1)[0] == pytest.approx(np.sqrt(0.28))


@pytest.mark.parametrize("outputs", [np.zeros((9, 1, 2)), np.zeros((2, 2, 2)), np.full((9, 2, 2), np.nan)])
def test_fits_that_cannot_agree_are_refused(outputs):
    with pytest.raises(ValueError, match="fits agree where there are two of at least 3 subsets, all finite"):
        fit_correlations(outputs)
