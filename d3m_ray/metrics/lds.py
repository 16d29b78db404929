"""The linear datamodeling score: how well attribution scores predict retrained models, and how well any could.

Shapes: M subsets of train that a model was retrained on, F fits of each, N train examples, T targets (queries, groups,
or one weighed sum of them), R resamples.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

MIN_SUBSETS = 3  # of two, a rank correlation is 1 or -1 whatever is true
MIN_SUBSETS_OF_INTERVAL = 10  # a bootstrap of fewer draws the same few models over and over: its bounds mean nothing
CONFIDENCE = 0.95  # of the bootstrap's intervals
NUM_RESAMPLES = 1000  # of subsets
ROUNDING = 8 * float(np.finfo(np.float64).eps)  # of a sum, as a share of the sum of the absolute values


@dataclass(frozen=True, eq=False)
class Correlations:
    """A rank correlation over the subsets for each target, with its 95% bootstrap interval, and their mean.

    `values`, `low` and `high` are [T] float64 between -1 and 1. They are NaN where what is correlated does not vary
    over the subsets; such a target does not enter the means. Bounds are NaN of fewer than `MIN_SUBSETS_OF_INTERVAL`
    subsets.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: float
    mean_low: float
    mean_high: float
    resampled_means: np.ndarray
    """[R] the mean over targets in each resample; the same resamples of as many subsets, whatever is correlated."""
    num_subsets: int


def linear_datamodeling_scores(
    scores: np.ndarray, kept: np.ndarray, outputs: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> Correlations:
    """LDS of scores [N, T], given the subsets kept [M, N] bool and outputs [M, T] of the models retrained on them.

    The rank correlation over the subsets of a target's output and of its prediction, the sum of the scores of what the
    subset keeps (Park et al. 2023, arXiv 2303.14186, section 2; Ilyas et al. 2022, arXiv 2202.00622). Outputs are what
    the models make of the queries, mean over a subset's fits, or means of that over the groups.

    The intervals are percentiles of a bootstrap over the subsets, not over the targets: retrained models are the few
    that the score rests on, and one model's luck moves all targets at once. A resample serves all targets, so that
    the mean's interval holds what they share. Repeats pull a rank correlation toward zero, by order 1 / M: the mean
    over very many targets lies near the outer end of its interval, or just past it. Raises ValueError where shapes do
    not fit, values are not finite, or M is below 3.
    """
    _check(scores, kept, outputs)
    predicted = _predicted(kept.astype(np.float64), scores.astype(np.float64))
    counts = _counts(len(kept), num_resamples, seed)
    pairs = zip(predicted.T, outputs.T, strict=True)
    return _summary(np.stack([rank_correlations(*pair, counts) for pair in pairs], axis=1), len(kept))


def fit_correlations(outputs: np.ndarray, num_resamples: int = NUM_RESAMPLES, seed: int = 0) -> Correlations:
    """How far two fits of one subset agree: the rank correlation of their outputs [M, F, T] over the subsets.

    The mean over the F (F - 1) / 2 pairs of fits, in the resamples of `linear_datamodeling_scores`. Raises ValueError
    where F is below 2, M below 3, or values are not finite.
    """
    num_subsets, num_fits, num_targets = outputs.shape
    if num_fits < 2 or num_subsets < MIN_SUBSETS or not np.isfinite(outputs).all():
        raise ValueError(
            f"fits agree where there are two of at least {MIN_SUBSETS} subsets, all finite; received {outputs.shape}"
        )
    counts = _counts(num_subsets, num_resamples, seed)
    of_targets = []
    for target in range(num_targets):
        pairs = combinations(outputs[:, :, target].T, 2)
        of_pairs = np.stack([rank_correlations(*pair, counts) for pair in pairs], axis=1)
        of_targets.append(_mean_of_known(of_pairs))
    return _summary(np.stack(of_targets, axis=1), num_subsets)


def ceiling(fit_correlation: np.ndarray, num_fits: int) -> np.ndarray:
    """The LDS that a perfect prediction of what a subset's fits have in common would reach, given `fit_correlations`.

    With r the correlation of two fits, the mean over F fits has the reliability F r / (1 + (F - 1) r) (Spearman, 1910;
    Brown, 1910), and correlates with the expected outcome as its square root. NaN where r is not above 0: the fits have
    nothing in common that could be measured. Exact for Pearson's correlation; for ranks of normal outcomes it is too
    high by less than .01. Of a mean of r over targets it is an upper bound, the function being concave.
    """
    known = np.where(fit_correlation > 0, fit_correlation, np.nan)
    return np.sqrt(num_fits * known / (1 + (num_fits - 1) * known))


def ceiling_bound(bound: np.ndarray, num_fits: int) -> np.ndarray:
    """`ceiling` of a bound of the correlation; 0 where that is not above 0, NaN where there is none."""
    return np.where(bound <= 0, 0.0, ceiling(bound, num_fits))


def _predicted(kept: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[M, T] sums of the scores [N, T] that each subset keeps, as the order of the subsets: equal ones are one number.

    What floating point makes of one sum in two orders would else be ranked, of constant scores too.
    """
    sums = kept @ scores
    order = np.argsort(sums, axis=0)
    gaps = np.diff(np.take_along_axis(sums, order, axis=0), axis=0)
    rounding = ROUNDING * np.abs(scores).sum(axis=0)
    places = np.concatenate([np.zeros_like(sums[:1]), np.cumsum(gaps > rounding, axis=0)])
    ranked = np.empty_like(sums)
    np.put_along_axis(ranked, order, places, axis=0)
    return ranked


def _check(scores: np.ndarray, kept: np.ndarray, outputs: np.ndarray) -> None:
    if scores.ndim != 2 or kept.shape[1:] != scores.shape[:1] or outputs.shape != (len(kept), scores.shape[1]):
        raise ValueError(
            f"scores are [N, T], kept [M, N] and outputs [M, T]; received {scores.shape}, {kept.shape}, {outputs.shape}"
        )
    if kept.dtype != np.bool_:
        raise ValueError(f"kept says of each train example whether a subset has it, received {kept.dtype}, not bool")
    if len(kept) < MIN_SUBSETS:
        raise ValueError(f"a rank correlation takes at least {MIN_SUBSETS} subsets, received {len(kept)}")
    if not (np.isfinite(scores).all() and np.isfinite(outputs).all()):
        raise ValueError("scores and outputs are finite numbers; received NaN or infinity, as of a model that diverged")


def _counts(num_subsets: int, num_resamples: int, seed: int) -> np.ndarray:
    """[M, 1 + R]: every subset once, then the resamples."""
    counts = resampled_counts(num_subsets, num_resamples, seed)
    return np.concatenate([np.ones_like(counts[:, :1]), counts], axis=1)


def resampled_counts(num_subsets: int, num_resamples: int, seed: int) -> np.ndarray:
    """[M, R] float32: how often each subset stands in each resample of M subsets, drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_subsets, np.full(num_subsets, 1 / num_subsets), size=num_resamples)
    return drawn.T.astype(np.float32)


def rank_correlations(predicted: np.ndarray, actual: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[R] float64 Spearman correlations of predicted [M] and actual [M] in each resample; NaN where one is constant.

    `counts` [M, R] float32 says how often a pair stands in a resample. Equal values have their average rank, a pair
    drawn twice too. A correlation does not ask in which unit: it is taken of `_doubled_ranks`.
    """
    predicted_ranks, actual_ranks = _doubled_ranks(predicted, counts), _doubled_ranks(actual, counts)
    covariance = _summed_products(counts, predicted_ranks, actual_ranks)
    predicted_variance = _summed_products(counts, predicted_ranks, predicted_ranks)
    actual_variance = _summed_products(counts, actual_ranks, actual_ranks)
    scale = np.sqrt(predicted_variance * actual_variance)
    return np.divide(covariance, scale, out=np.full_like(scale, np.nan), where=scale > 0)


def _doubled_ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[M, R] float32: twice the rank of each of the values [M] in each resample, less twice the mean rank.

    That is the number of values in the resample that lie below it, less the number of those above:
    sum_j counts_j sign(x_i - x_j). One product of matrices gives it for all resamples, where sorting would take each
    by itself, and equal values get their average rank without a case of their own. float32 holds these whole numbers
    exactly.
    """
    is_above_or_below = np.sign(values[:, None] - values).astype(np.float32)  # [M, M]: 1 where i is above j, -1 below
    return is_above_or_below @ counts


def _summed_products(counts: np.ndarray, ranks: np.ndarray, other_ranks: np.ndarray) -> np.ndarray:
    """[R] float64: per resample the sum over its pairs of the products of two ranks [M, R], each pair counted."""
    return np.einsum("mr,mr->r", counts * ranks, other_ranks, dtype=np.float64)


def _summary(correlations: np.ndarray, num_subsets: int) -> Correlations:
    """What correlations [1 + R, T] say, of which the first are over every subset once, the others over resamples."""
    means = _mean_of_known(correlations)
    resampled = slice(1, None) if num_subsets >= MIN_SUBSETS_OF_INTERVAL else slice(0)
    low, high = _interval(correlations[resampled])
    mean_low, mean_high = _interval(means[resampled, None])
    return Correlations(
        values=correlations[0],
        low=low,
        high=high,
        mean=float(means[0]),
        mean_low=float(mean_low[0]),
        mean_high=float(mean_high[0]),
        resampled_means=means[resampled],
        num_subsets=num_subsets,
    )


def _mean_of_known(correlations: np.ndarray) -> np.ndarray:
    """[R] means over the targets of correlations [R, T] that are known; NaN where none is."""
    known = np.isfinite(correlations)
    sums, num_known = np.where(known, correlations, 0).sum(axis=1), known.sum(axis=1)
    return np.divide(sums, num_known, out=np.full_like(sums, np.nan), where=num_known > 0)


def _interval(resampled: np.ndarray) -> np.ndarray:
    """[2, T] the lower and upper percentile over the resamples [R, T] that are known; NaN where none is."""
    tail = (1 - CONFIDENCE) / 2
    interval = np.full((2, resampled.shape[1]), np.nan)
    known = np.isfinite(resampled).any(axis=0)
    interval[:, known] = np.nanquantile(resampled[:, known], [tail, 1 - tail], axis=0)
    return interval
