"""Which number removed each arm would be used with: chosen on val, so that test can judge it."""

import pandas as pd

from d3m_ray.analysis.results import PLAIN_OBJECTIVE, TRIAL, Results

WORST = "worst"
REFERENCE_METHOD = "random"
BASE = "nothing removed"
"""What stands as the method of the models that were trained plainly on everything."""
MIRROR_SUFFIX = "_helpful"
BEST_SUFFIX = "_best"


def arms_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of arms that remove something or train otherwise: all but those of base models."""
    return trials[(trials["num_removed"] > 0) | (trials["objective"] != PLAIN_OBJECTIVE)]


def chosen_numbers(results: Results) -> dict[str, int]:
    """By method, the number removed of highest mean val WGA over the seeds; of equals, the smallest.

    Base models are no choice. An arm of one number has that one.
    """
    rows = arms_of(results.trials_of("val"))
    worst = rows.loc[rows["group"] == WORST, [*TRIAL, "accuracy"]]
    means = worst.groupby(["method", "num_removed"])["accuracy"].mean().reset_index()
    best = means.sort_values(["accuracy", "num_removed"], ascending=[False, True]).drop_duplicates("method")
    chosen = best.sort_values("method")
    return dict(zip(chosen["method"], chosen["num_removed"].tolist(), strict=True))


def num_choices(results: Results) -> dict[str, int]:
    """By method, among how many numbers `chosen_numbers` chose, whatever there is to compare them with."""
    rows = arms_of(results.trials_of("val"))
    worst = rows[rows["group"] == WORST]
    counts = worst.groupby("method")["num_removed"].nunique()
    return {str(method): int(count) for method, count in counts.items()}


def is_mirror(method: str) -> bool:
    """Whether an arm removes the examples of highest alignment: its worst-group accuracy should fall."""
    return method.endswith(MIRROR_SUFFIX)


def chose_nothing(results: Results) -> list[str]:
    """The arms of a best number that took 0: val shows no gain of any, and they are the models of everything."""
    of_best = results.fits[results.fits["method"].str.endswith(BEST_SUFFIX)]
    most = of_best.groupby("method")["num_removed"].max()
    return [str(method) for method in most.index[most == 0]]


def base_of(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows of base models, each seed's once: every method that was asked for 0 has them."""
    rows = trials[(trials["num_removed"] == 0) & (trials["objective"] == PLAIN_OBJECTIVE)]
    return rows.drop_duplicates(["seed", "split", "group"]).assign(method=BASE)
