"""How much of a difference may lie in the test examples that happen to be in the test set: bootstrap within cells.

Shapes: Q test examples, F fits, S seeds, B resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from d3m_ray.analysis.statistics import NUM_RESAMPLES, RESAMPLING_SEED

FITS_AT_ONCE = 512  # columns of a matrix product: what they take beside the results stays small
MEASURES = ("worst", "worst_cell", "all")
"""What a fit is judged by: the accuracy of its worst group, of its worst cell, and of all test examples."""


@dataclass(frozen=True, eq=False)
class Resampled:
    """The accuracies of fits on resampled test examples."""

    columns: Mapping[str, int]
    """The column of each fit key."""
    accuracies: Mapping[str, np.ndarray]
    """[B, F] float32 by measure."""

    def differences(self, measure: str, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """[B, S] float64: of each pair of fit keys, the first one's accuracy less the second one's."""
        of_fits = self.accuracies[measure]
        first, second = ([self.columns[key] for key in keys] for keys in zip(*pairs, strict=True))
        return of_fits[:, first].astype(np.float64) - of_fits[:, second]


def resample_test_set(
    examples: pd.DataFrame, is_correct: Mapping[str, np.ndarray], num_resamples: int = NUM_RESAMPLES
) -> Resampled:
    """The accuracies of fits on test sets whose examples are drawn again, with replacement, within each cell.

    `examples` has Q rows with `group` and `label`; `is_correct` is [Q] bool by fit key. A resample is the same for
    every fit, since all answer the same examples; cells keep their sizes. A post that stands in two groups is two
    examples: the worst group and the worst cell hold it once, and only for `all` is it taken as two independent ones.
    """
    groups = _rows_of_cells(examples)
    weights = _draw_weights([rows for of_group in groups for rows in of_group], len(examples), num_resamples)
    accuracies = {name: np.ones((num_resamples, len(is_correct)), dtype=np.float32) for name in MEASURES}
    keys = list(is_correct)
    for start in range(0, len(keys), FITS_AT_ONCE):
        part = slice(start, start + FITS_AT_ONCE)
        correct = np.stack([is_correct[key] for key in keys[part]], axis=1).astype(np.float32)
        num_correct = np.zeros((num_resamples, correct.shape[1]), dtype=np.float32)
        for of_group in groups:
            of_cells = [weights[:, rows] @ correct[rows] for rows in of_group]  # sums of ones: exact in float32
            for rows, right in zip(of_group, of_cells, strict=True):
                np.minimum(accuracies["worst_cell"][:, part], right / len(rows), out=accuracies["worst_cell"][:, part])
            right, size = sum(of_cells), sum(map(len, of_group))
            np.minimum(accuracies["worst"][:, part], right / size, out=accuracies["worst"][:, part])
            num_correct += right
        accuracies["all"][:, part] = num_correct / len(examples)
    return Resampled({key: column for column, key in enumerate(keys)}, accuracies)


def test_set_variance(differences: np.ndarray) -> float:
    """The variance that the finite test set gives the mean difference over these seeds.

    `differences` is [B, S], one column per seed, of resampled test examples. Seeds and test examples are crossed: a
    difference at one seed is mean + seed + example + both. Added to the variance over seeds, which has the seed and
    both, this one counts what is of both twice, on the safe side; to draw seeds and examples at once and take quantiles
    counts it three times (Owen, 2007, "The pigeonhole bootstrap"), and takes few seeds for normal. Of 1,500 simulated
    null contrasts of 6 seeds at the level of 5% / 3, Student's t alone claimed 3.3% where arms differed on the test
    examples alone, both variances together 0.3%, and 1.1% where nothing differed but by seed.
    """
    return float(differences.mean(axis=1).var(ddof=1))


def shared_variance(differences: np.ndarray) -> float:
    """The part of `test_set_variance` that no further seed takes away: what examples have under every seed.

    It is the covariance between two seeds' differences [B, S] under resampled examples, here its mean over the pairs of
    seeds, or 0 where that is negative. NaN of fewer than two seeds.
    """
    num_seeds = differences.shape[1]
    if num_seeds < 2:
        return float("nan")
    own = differences.var(axis=0, ddof=1).sum()
    covariances = differences.sum(axis=1).var(ddof=1) - own
    return max(float(covariances / (num_seeds * (num_seeds - 1))), 0.0)


def _rows_of_cells(examples: pd.DataFrame) -> list[list[np.ndarray]]:
    """Of each group, the positions of each label's examples."""
    numbered = examples.reset_index(drop=True)
    return [
        [rows.index.to_numpy() for _, rows in of_group.groupby("label")] for _, of_group in numbered.groupby("group")
    ]


def _draw_weights(cells: Sequence[np.ndarray], num_examples: int, num_resamples: int) -> np.ndarray:
    """[B, Q] float32: how often each example is drawn, each cell's adding up to its size."""
    rng = np.random.default_rng(RESAMPLING_SEED)
    weights = np.empty((num_resamples, num_examples), dtype=np.float32)
    for rows in cells:
        size = len(rows)
        drawn = rng.integers(size, size=(num_resamples, size)) + size * np.arange(num_resamples)[:, None]
        weights[:, rows] = np.bincount(drawn.ravel(), minlength=num_resamples * size).reshape(num_resamples, size)
    return weights
