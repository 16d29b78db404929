"""What each arm changes: differences paired by seed, to random removal of as many and to the model of everything."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.analysis.after_choice import MAX_CORRELATION, choice_correlation, p_after_choice
from d3m_ray.analysis.best_choice import best_choices, correlation_of_best
from d3m_ray.analysis.choice import REFERENCE_METHOD, WORST, arms_of, chosen_numbers, num_choices
from d3m_ray.analysis.power import SIGNIFICANCE, num_seeds_needed, smallest_difference
from d3m_ray.analysis.resampling import MEASURES, Resampled, resample_test_set, shared_variance, test_set_variance
from d3m_ray.analysis.results import TRIAL, Results, once
from d3m_ray.analysis.statistics import (
    MIN_VALUES,
    holm,
    sign_flip_test,
    standard_error,
    t_bounds,
    t_interval,
    t_p_value,
    t_test,
)

REFERENCES = (REFERENCE_METHOD, "base")
COLUMNS = (
    *("method", "num_removed", "reference", "measure", "num_pairs", "difference"),
    *("t_low", "t_high", "boot_low", "boot_high", "p_t", "p_flip", "p_boot", "p_holm"),
    *("smallest_difference", "num_seeds_for_2_points", "differences", "seeds"),
    *("deviation", "test_set_variance", "shared_variance", "boot_error", "boot_degrees"),
)
DECLARED_COLUMNS = (*COLUMNS, "num_numbers", "choice_correlation", "p_choice")

Arm = tuple[str, int]
Row = Mapping[Hashable, Any]  # a frame's, by column
_Fits = dict[int, tuple[str, np.ndarray]]  # by seed, a fit's key and its accuracies by `MEASURES`


@once
def contrast_table(results: Results) -> pd.DataFrame:
    """One row per method, number removed, reference and measure: the mean difference over the seeds that both have.

    `reference` is `random` (removal of as many; where num_removed is 0 there is none) or `base` (the model trained on
    everything); `measure` is `worst` (the worst group's test accuracy), `worst_cell` or `all`. Two trials that are one
    fit are no pair. Columns, differences being of accuracy between -1 and 1: `num_pairs`; `difference`; `t_low` and
    `t_high`, Student's 95% interval over the seeds; `boot_low`, `boot_high` and `p_boot`, which cover the finite test
    set too (`resampling.test_set_variance` added, degrees of freedom by Satterthwaite, 1946); `p_t` and `p_flip` of
    Student's t and of the exact sign-flip test; `p_holm`, the larger of `p_t` and `p_boot` adjusted for all rows of
    the reference and measure; `smallest_difference`, which so many seeds find with 80% power at 5% over the number of
    those rows, and `num_seeds_for_2_points`, infinite where the test set is too small for any; `differences` and their
    `seeds`, in order, blanks between; and what the second interval is made of. Below `MIN_VALUES` pairs, bounds and p
    values are NaN; where no answers are stored, those of the second interval. Empty without arms.
    """
    rows = _contrasts(results).copy()
    adjusted = [_with_family(family, family[["p_t", "p_boot"]].max(axis=1, skipna=False)) for family in _families(rows)]
    return pd.concat(adjusted).sort_index()[list(COLUMNS)] if adjusted else rows.reindex(columns=list(COLUMNS))


@once
def declared_table(results: Results, reference: str | None = None) -> pd.DataFrame:
    """One row per arm, the one contrast that is declared beforehand: its number chosen on val, the worst group on test.

    Against random removal of as many where there is such a trial of the same seed, else against the base; with a
    `reference`, against that one, where there is one. Columns as in `contrast_table`, with `num_numbers` among which
    the arm's was chosen, `choice_correlation` and `p_choice`, the larger of the two p values after allowing for that
    choice (`after_choice`), for which `p_holm` adjusts over the rows. The intervals are those of each contrast alone,
    not widened for the choice or for the number of arms.
    """
    rows = _contrasts(results)
    rows = rows[rows["measure"] == WORST]
    numbers = rows.groupby("method")["num_removed"]
    num_compared = numbers.nunique()
    of_one_number = numbers.first()[num_compared == 1].to_dict()  # which needs no val
    chosen = of_one_number | chosen_numbers(results)
    if reference is not None:
        rows = rows[rows["reference"] == reference]
    rows = _first_reference(rows[rows["num_pairs"] > 0])
    correlation = _correlation(results, rows)
    declared = rows[rows["num_removed"] == rows["method"].map(chosen)].reset_index(drop=True)
    if declared.empty:
        return declared.reindex(columns=list(DECLARED_COLUMNS))
    declared["num_numbers"] = declared["method"].map(num_choices(results)).fillna(1).astype("int64")
    declared["choice_correlation"] = np.where(declared["num_numbers"] > 1, correlation, 0.0)
    differences = _differences(rows)
    for method, choice in best_choices(results).items():
        of_best = declared["method"] == method
        declared.loc[of_best, "num_numbers"] = len(choice.numbers)
        declared.loc[of_best, "choice_correlation"] = correlation_of_best(choice, differences.get(choice.source, {}))
    declared["p_choice"] = [_p_choice(row) for row in declared.to_dict("records")]
    return _with_family(declared, declared["p_choice"])[list(DECLARED_COLUMNS)]


def _first_reference(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each arm and number, the row of the first of `REFERENCES` that it has."""
    order = rows["reference"].map(REFERENCES.index)
    return (
        rows.assign(order=order)
        .sort_values(["method", "num_removed", "order"])
        .drop_duplicates(["method", "num_removed"])
    )


def _p_choice(row: Row) -> float:
    """The larger of the p values of Student's t and of the wider interval, after the choice of the number."""
    if np.isnan(row["p_t"]) or np.isnan(row["p_boot"]):
        return float("nan")
    seeds_error = row["deviation"] / np.sqrt(row["num_pairs"])
    if seeds_error == 0:
        return max(row["p_t"], row["p_boot"])
    p_values = [
        p_after_choice(
            row["difference"] / error, degrees, row["num_numbers"], row["choice_correlation"] * seeds_error / error
        )
        for error, degrees in ((seeds_error, row["num_pairs"] - 1), (row["boot_error"], row["boot_degrees"]))
    ]
    return max(p_values)


def _correlation(results: Results, rows: pd.DataFrame) -> float:
    """`choice_correlation` over the arms that have several numbers here; where none has, the largest there can be."""
    differences = _differences(rows)
    val = results.trials_of("val")
    accuracies = val[val["group"] == WORST].pivot(index="seed", columns=["method", "num_removed"], values="accuracy")
    methods = [method for method, by_number in differences.items() if len(by_number) > 1]
    if not methods:
        return MAX_CORRELATION
    columns = {method: [(method, number) for number in differences[method]] for method in methods}
    return choice_correlation(
        [accuracies.reindex(columns=columns[method]).dropna() for method in methods],
        [pd.DataFrame(differences[method]) for method in methods],
    )


def _differences(rows: pd.DataFrame) -> dict[str, dict[int, pd.Series]]:
    """By method and number removed, the differences of these rows by seed."""
    differences: dict[str, dict[int, pd.Series]] = {}
    for row in rows.to_dict("records"):
        values = [float(value) for value in row["differences"].split()]
        seeds = [int(seed) for seed in row["seeds"].split()]
        differences.setdefault(row["method"], {})[row["num_removed"]] = pd.Series(values, index=seeds)
    return differences


def _families(rows: pd.DataFrame) -> list[pd.DataFrame]:
    return [family for _, family in rows.groupby(["reference", "measure"], sort=False)]


def _with_family(rows: pd.DataFrame, p_values: pd.Series) -> pd.DataFrame:
    """The rows with what depends on how many are tested at once."""
    level = SIGNIFICANCE / max(int(p_values.notna().sum()), 1)
    smallest, needed = [], []
    for row in rows.to_dict("records"):
        num_pairs = row["num_pairs"]
        added, shared = np.nan_to_num([row["test_set_variance"], row["shared_variance"]])
        spread = float(np.sqrt(row["deviation"] ** 2 + num_pairs * max(added - shared, 0)))  # that more seeds average
        enough = num_pairs >= MIN_VALUES
        smallest.append(smallest_difference(spread, num_pairs, level, shared) if enough else np.nan)
        needed.append(num_seeds_needed(spread, level, shared))
    return rows.assign(p_holm=holm(p_values), smallest_difference=smallest, num_seeds_for_2_points=needed)


@once
def _contrasts(results: Results) -> pd.DataFrame:
    """The rows of every contrast, without what depends on how many are tested at once."""
    answers = results.answers
    resampled = None if answers is None else resample_test_set(answers.examples, answers.is_correct)
    rows = [
        {"method": arm[0], "num_removed": arm[1], "reference": reference, "measure": measure}
        | _compare(pair, measure, resampled)
        for arm, reference, pair in _pairs(results)
        for measure in MEASURES
    ]
    return pd.DataFrame(rows, columns=[name for name in COLUMNS if name in rows[0]] if rows else list(COLUMNS))


@dataclass(frozen=True, eq=False)
class _Pair:
    """An arm and its reference at the S seeds that both have."""

    seeds: Sequence[int]
    keys: Sequence[tuple[str, str]]
    """The fit keys."""
    differences: np.ndarray
    """[S, measures] float64."""


def _pairs(results: Results) -> Iterator[tuple[Arm, str, _Pair]]:
    """Every arm but random removal with each of its references."""
    trials = results.trials[results.trials["group"].isin(MEASURES)]
    rows = trials.pivot(index=[*TRIAL, "fit_key"], columns="group", values="accuracy").reindex(columns=list(MEASURES))
    fits: dict[Arm, _Fits] = {}
    for (method, num_removed, seed, fit_key), values in zip(rows.index, rows.to_numpy(), strict=True):
        fits.setdefault((method, num_removed), {})[seed] = (fit_key, values)
    plain = set(results.base_fits.values())
    base = {fit[0]: (seed, fit) for of_arm in fits.values() for seed, fit in of_arm.items() if fit[0] in plain}
    for arm in arms_of(trials)[["method", "num_removed"]].drop_duplicates().itertuples(index=False, name=None):
        if arm[0] == REFERENCE_METHOD:
            continue
        at_random = fits.get((REFERENCE_METHOD, arm[1]), {})
        if at_random and arm[1] > 0:
            yield arm, REFERENCE_METHOD, _pair(fits[arm], at_random)
        if base:
            yield arm, "base", _pair(fits[arm], dict(base.values()))


def _pair(ours: _Fits, theirs: _Fits) -> _Pair:
    seeds = sorted(seed for seed in ours.keys() & theirs.keys() if ours[seed][0] != theirs[seed][0])
    keys = [(ours[seed][0], theirs[seed][0]) for seed in seeds]
    differences = [ours[seed][1] - theirs[seed][1] for seed in seeds]
    return _Pair(seeds, keys, np.reshape(differences, (len(seeds), len(MEASURES))))


def _compare(pair: _Pair, measure: str, resampled: Resampled | None) -> dict[str, Any]:
    """The columns of one row that do not depend on others."""
    differences = pair.differences[:, MEASURES.index(measure)]
    interval = t_interval(differences)
    seeds_error = standard_error(differences)
    added, shared = _variances(pair, measure, resampled)
    has_interval = len(differences) >= MIN_VALUES
    error = float(np.sqrt(seeds_error**2 + added)) if has_interval else float("nan")
    degrees = (len(differences) - 1) * (error / seeds_error) ** 4 if seeds_error > 0 else float("inf")
    low, high = t_bounds(interval.mean, error, degrees)
    p_t, p_boot = t_test(differences), t_p_value(interval.mean, error, degrees)
    return {
        "num_pairs": len(differences),
        "difference": interval.mean,
        "t_low": interval.low,
        "t_high": interval.high,
        "boot_low": min(low, interval.low) if has_interval else float("nan"),
        "boot_high": max(high, interval.high) if has_interval else float("nan"),
        "p_t": p_t,
        "p_flip": sign_flip_test(differences),
        "p_boot": max(p_boot, p_t) if not np.isnan(p_boot) else float("nan"),
        "differences": " ".join(f"{value:.6g}" for value in differences),
        "seeds": " ".join(map(str, pair.seeds)),
        "deviation": seeds_error * np.sqrt(len(differences)),
        "test_set_variance": added,
        "shared_variance": shared,
        "boot_error": error,
        "boot_degrees": degrees,
    }


def _variances(pair: _Pair, measure: str, resampled: Resampled | None) -> tuple[float, float]:
    """What the finite test set adds, and what more seeds would not take away, by the pairs whose answers are stored."""
    stored = [] if resampled is None else [both for both in pair.keys if set(both) <= set(resampled.columns)]
    if resampled is None or len(stored) < 2:
        return float("nan"), float("nan")
    differences = resampled.differences(measure, stored)
    return test_set_variance(differences), shared_variance(differences)
