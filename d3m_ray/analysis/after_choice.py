"""What choosing the number removed by the same fits does to the p value of its test.

A fit that is lucky is lucky on val and on test, so the number of highest val accuracy has lucky fits: its test accuracy
is too high even where no number differs from random removal. Of 20,000 simulated arms without any effect (6 seeds, a
fit's val and test accuracies correlated by 1), Student's two-sided t at 5% claimed a gain in 5.7% (3 numbers to choose
among) and in 10.2% (8 numbers). The p below is two-sided: at 5% it claims something in 5%, and since the choice moves
means upwards only, nearly all of that is gains. To leave each seed out of its own choice does not fix it,
since the seeds' choices hang together: 8.6% and 10.6% claimed something.
"""

import numpy as np
import pandas as pd
from scipy.special import ndtr
from scipy.stats import norm

from d3m_ray.analysis.power import beyond

MAX_CORRELATION = 0.999  # at 1 the formula divides by 0
NUM_NODES = 120  # of Gauss and Legendre's rule, from -8 to 8
HIGHEST = 8.0  # standard deviations: the largest of any number of values lies below


def p_after_choice(ratio: float, degrees: float, num_numbers: int, correlation: float) -> float:
    """Two-sided p of a mean over standard error, `ratio`, at the best of `num_numbers` by val, without any effect.

    `correlation` is that of the chosen-by val mean and the tested difference over the fits of one number. For normal
    values and M, the largest of K standard normals, the ratio is (c M + sqrt(1 - c²) N) / s, where Student's t is
    N / s: at a correlation of zero it is Student's p. NaN where the ratio is NaN.
    """
    if num_numbers < 2 or np.isnan(ratio):
        correlation, num_numbers = 0.0, 1
    own = np.clip(correlation, 0, MAX_CORRELATION)
    nodes, weights = np.polynomial.legendre.leggauss(NUM_NODES)
    largest = HIGHEST * nodes
    density = HIGHEST * weights * num_numbers * norm.pdf(largest) * ndtr(largest) ** (num_numbers - 1)
    rest = np.sqrt(1 - own**2)

    def tail(z: np.ndarray) -> np.ndarray:
        critical = z[..., None]
        return (ndtr((own * largest - critical) / rest) + ndtr((-own * largest - critical) / rest)) @ density

    return min(beyond(abs(ratio), degrees, tail), 1.0)


def choice_correlation(accuracies: list[pd.DataFrame], differences: list[pd.DataFrame]) -> float:
    """How much the val accuracies that numbers are chosen by tell of the tested differences, but for their means.

    One frame of each per arm, seeds by the same numbers removed, NaN where there is none. What all numbers of a seed
    share decides no choice and is taken out; the arms are pooled. 0 where nothing tells, or where it is negative.
    """
    products, squares, squares_of_differences = 0.0, 0.0, 0.0
    for of_val, of_test in zip(accuracies, differences, strict=True):
        known = of_val.index.intersection(of_test.dropna().index)
        num_numbers = of_val.shape[1]
        if num_numbers < 2 or len(known) < 2:
            continue
        val, test = of_val.loc[known].to_numpy(), of_test.loc[known].to_numpy()
        val = val - val.mean(axis=1, keepdims=True)
        val, test = val - val.mean(axis=0), test - test.mean(axis=0)
        shrunk = 1 - 1 / num_numbers  # of the variance is left when the seed's mean is taken out
        products += (val * test).sum() / shrunk
        squares += (val**2).sum() / shrunk
        squares_of_differences += (test**2).sum()
    scale = np.sqrt(squares * squares_of_differences)
    return float(np.clip(products / scale, 0, MAX_CORRELATION)) if scale > 0 else 0.0
