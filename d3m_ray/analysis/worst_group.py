"""The worst group's accuracy in its several senses, beside what chance alone would make of it; and every group's.

Shapes: G groups.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.stats import binom

from d3m_ray.analysis.choice import BASE, arms_of, base_of
from d3m_ray.analysis.corpus import trial_identities
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import wilson_bounds
from d3m_ray.metrics.groups import METRICS, SUMMARY_GROUPS

WORST_COLUMNS = (
    *("method", "num_removed", "num_seeds", "mean_of_minima", "minimum_of_means"),
    *("fixed_group", "fixed_group_accuracy", "chance_minimum"),
)
GROUP_COLUMNS = (
    *("method", "num_removed", "group", "num_examples", "num_seeds", "accuracy", "wilson_low", "wilson_high"),
    *(metric for metric in METRICS if metric != "accuracy"),
)


@once
def worst_group_table(results: Results) -> pd.DataFrame:
    """One row for the base models, whose method is `BASE`, and one per arm and number removed, on test.

    Columns: `mean_of_minima`, the mean over seeds of each model's lowest group accuracy; `minimum_of_means`, the lowest
    of the groups' mean accuracies; `fixed_group`, that of lowest mean val accuracy under the base models, the same in
    every row, and the mean test accuracy there (missing without base models); `chance_minimum`, what `mean_of_minima`
    would be if every group were answered with the same probability, the arm's mean group accuracy, so that only the
    groups' sizes made one the worst. Empty without trials.
    """
    fixed, identities = fixed_group(results), trial_identities(results)
    rows = []
    for method, num_removed, trials in _arms(results):
        by_group = trials.pivot(index="seed", columns="group", values="accuracy")
        groups = [name for name in identities if name in by_group]
        accuracies = by_group[groups]
        sizes = trials.drop_duplicates("group").set_index("group")["num_examples"][groups]
        means = accuracies.mean()
        row = (method, num_removed, len(accuracies), accuracies.min(axis=1).mean(), means.min())
        of_fixed = (None, np.nan) if fixed is None else (fixed, means[fixed])
        rows.append((*row, *of_fixed, expected_minimum(sizes.to_numpy(), float(means.mean()))))
    return pd.DataFrame(rows, columns=list(WORST_COLUMNS))


@once
def group_table(results: Results) -> pd.DataFrame:
    """One row per arm and identity, cell or `all`, on test: the means over seeds of every metric.

    `wilson_low` and `wilson_high` are the bounds that the group's number of test examples alone gives the mean
    accuracy: all seeds answer the same examples. Rows and `BASE` as in `worst_group_table`.
    """
    frames = []
    for method, num_removed, trials in _arms(results):
        shown = trials[~trials["group"].isin(SUMMARY_GROUPS[1:])]  # the worst is another group at each seed
        by_group = shown.groupby("group", sort=False)
        means = by_group[list(METRICS)].mean()
        sizes = by_group["num_examples"].first()
        low, high = wilson_bounds(means["accuracy"], sizes)
        frame = means.assign(num_examples=sizes, num_seeds=by_group["seed"].nunique(), wilson_low=low, wilson_high=high)
        frames.append(frame.reset_index().assign(method=method, num_removed=num_removed))
    empty = pd.DataFrame(columns=list(GROUP_COLUMNS))
    return pd.concat(frames, ignore_index=True)[list(GROUP_COLUMNS)] if frames else empty


def fixed_group(results: Results) -> str | None:
    """The group of lowest mean val accuracy under the base models, None where there are none; of equals, the first."""
    base = base_of(results.trials_of("val"))
    base = base[base["group"].isin(trial_identities(results))]
    return None if base.empty else str(base.groupby("group")["accuracy"].mean().idxmin())


def expected_minimum(sizes: Sequence[int] | np.ndarray, accuracy: float) -> float:
    """The mean of the lowest of G shares of right answers, each of so many examples, right with one probability.

    Exact: E[min] is the integral of P(min > x), the product of the groups' binomial survival functions, over the steps
    that those have. Groups are taken as independent.
    """
    sizes = np.asarray(sizes)
    steps = np.unique(np.concatenate([np.arange(size + 1) / size for size in sizes]))
    # Between two steps lies no share: asked halfway, no rounding decides on which side of a step a share is.
    middles, widths = (steps[1:] + steps[:-1]) / 2, np.diff(steps)
    survival = np.prod([binom.sf(np.floor(size * middles), size, accuracy) for size in sizes], axis=0)
    return float((survival * widths).sum())


def _arms(results: Results) -> Iterator[tuple[str, int, pd.DataFrame]]:
    """The base models' test rows, once a seed, then those of every arm and number removed."""
    trials = results.trials
    base = base_of(trials)
    if len(base):
        yield BASE, 0, base
    for (method, num_removed), rows in arms_of(trials).groupby(["method", "num_removed"]):
        yield str(method), int(str(num_removed)), rows
