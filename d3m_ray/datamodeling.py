"""The linear datamodeling score: how well attribution scores foretell the margins of retrained models.

Shapes: M subsets of train that a model was retrained on, N train examples, T targets (queries or groups), R resamples.
"""

from dataclasses import dataclass

import numpy as np

MIN_SUBSETS = 3
MIN_SUBSETS_OF_INTERVAL = 10  # a bootstrap of fewer draws the same few models over and over: its bounds mean nothing
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False)
class DatamodelingScores:
    """The linear datamodeling score of each target with its 95% bootstrap interval, and their mean over targets.

    `lds`, `low` and `high` are [T] float64 between -1 and 1. They are NaN where predictions or outputs do not vary over
    the subsets; such a target does not enter the means. Bounds are NaN of fewer than `MIN_SUBSETS_OF_INTERVAL` subsets.
    """

    lds: np.ndarray
    low: np.ndarray
    high: np.ndarray
    mean: float
    mean_low: float
    mean_high: float
    num_subsets: int


def linear_datamodeling_scores(
    scores: np.ndarray, kept: np.ndarray, outputs: np.ndarray, num_resamples: int = 1000, seed: int = 0
) -> DatamodelingScores:
    """LDS of scores [N, T], given the subsets kept [M, N] bool and outputs [M, T] of the models retrained on them.

    The rank correlation over the subsets of a target's output and of its prediction, the sum of the scores of what the
    subset keeps (Park et al. 2023, arXiv 2303.14186, section 2; Ilyas et al. 2022, arXiv 2202.00622). Outputs are
    margins of the queries, or mean margins of the groups.

    The intervals are percentiles of a bootstrap over the subsets, not over the targets: retrained models are the few
    that the score rests on, and one model's luck moves all targets at once. A resample serves all targets, so that
    the mean's interval holds what they share. Repeats pull a rank correlation toward zero, by order 1 / M: the mean
    over very many targets lies near the outer end of its interval, or just past it. Raises ValueError where shapes do
    not fit, values are not finite, or M is below 3.
    """
    _check(scores, kept, outputs)
    predicted = kept.astype(np.float64) @ scores.astype(np.float64)
    counts = resampled_counts(len(kept), num_resamples, seed)
    counts = np.concatenate([np.ones_like(counts[:, :1]), counts], axis=1)  # first, every subset once
    pairs = zip(predicted.T, outputs.T, strict=True)
    correlations = np.stack([rank_correlations(*pair, counts) for pair in pairs], axis=1)
    means = _mean_of_known(correlations)
    resampled = slice(1, None) if len(kept) >= MIN_SUBSETS_OF_INTERVAL else slice(0)
    low, high = _interval(correlations[resampled])
    mean_low, mean_high = _interval(means[resampled, None])
    return DatamodelingScores(
        lds=correlations[0],
        low=low,
        high=high,
        mean=float(means[0]),
        mean_low=float(mean_low[0]),
        mean_high=float(mean_high[0]),
        num_subsets=len(kept),
    )


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


def resampled_counts(num_subsets: int, num_resamples: int, seed: int) -> np.ndarray:
    """[M, R] float32: how often each subset stands in each resample of M subsets, drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(num_subsets, np.full(num_subsets, 1 / num_subsets), size=num_resamples)
    return drawn.T.astype(np.float32)


def rank_correlations(predicted: np.ndarray, actual: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """[R] float64 Spearman correlations of predicted [M] and actual [M] in each resample; NaN where one is constant.

    `counts` [M, R] says how often a pair stands in a resample. Equal values have their average rank, which is right for
    a pair drawn twice: less its mean, twice the rank of value i is sum_j counts_j sign(x_i - x_j). So no resample is
    ever sorted. float32 holds these whole numbers exactly.
    """
    predicted_ranks, actual_ranks = (
        np.sign(values[:, None] - values).astype(np.float32) @ counts for values in (predicted, actual)
    )
    weighted = counts * predicted_ranks
    covariance = np.einsum("mr,mr->r", weighted, actual_ranks, dtype=np.float64)
    predicted_variance = np.einsum("mr,mr->r", weighted, predicted_ranks, dtype=np.float64)
    actual_variance = np.einsum("mr,mr->r", counts * actual_ranks, actual_ranks, dtype=np.float64)
    scale = np.sqrt(predicted_variance * actual_variance)
    return np.divide(covariance, scale, out=np.full_like(scale, np.nan), where=scale > 0)


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
