"""Linear datamodeling scores: how well each method's scores predict retraining, and how well any could."""

from collections.abc import Hashable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import CONFIDENCE

MEAN = "mean"  # the target whose row is the mean over all targets of its kind
KINDS = {"query": "per val example", "group": "per group", "alignment": "of the alignment"}
STUDY = ["subset_seeds", "keep_share"]
AGREEMENT = ("fit_correlation", "fit_correlation_low", "fit_correlation_high")
CEILING = ("ceiling", "ceiling_low", "ceiling_high")
COLUMNS = [
    *("method", *STUDY, "kind", "target", "lds", "lds_low", "lds_high"),
    *(*CEILING, *AGREEMENT, "num_subsets", "fits_per_subset", "scoring_seconds"),
]
DIFFERENCE_COLUMNS = [
    *(*STUDY, "kind", "first", "second"),
    *("lds_difference", "lds_difference_low", "lds_difference_high", "verdict", "num_subsets"),
]


def as_percent(share: Hashable) -> str:
    """A share of train, as it is written: 50%."""
    return f"{100 * float(str(share)):g}%"


def most_retrained(lds: pd.DataFrame) -> pd.DataFrame:
    """The rows that count, of each method and study: over the most subsets, and of those with the most fits of each.

    Of several over as many, as where another subset failed in each, those of the last key.
    """
    for measure in ("num_subsets", "fits_per_subset", "lds_key"):
        lds = lds[lds[measure] == lds.groupby(["method", *STUDY])[measure].transform("max")]
    return lds


def leading_kind(lds: pd.DataFrame) -> str:
    """The kind by which methods are ordered: the finest that all of them have."""
    of_kinds = {kind: set(lds.loc[lds["kind"] == kind, "method"]) for kind in KINDS}
    return next((kind for kind, methods in of_kinds.items() if methods == set(lds["method"])), "group")


def mean_lds(lds: pd.DataFrame) -> pd.DataFrame:
    """Of the rows that count, the means over all targets of a kind, where they are known."""
    return most_retrained(lds[(lds["target"] == MEAN) & lds["lds"].notna()])


@once
def lds_table(results: Results) -> pd.DataFrame:
    """One row per method, study, kind and target: the mean over val examples, that over groups, each group, alignment.

    A study is a share of train that its subsets keep, and whose seeds their fits have; of each those over the most
    subsets count. Columns: `method`, `subset_seeds`, `keep_share`, `kind` (query, group or alignment), `target`, `lds`
    with `lds_low` and `lds_high` (95% bootstrap over the subsets), the `ceiling` and the `fit_correlation` with bounds
    of the same kind, `num_subsets`, `fits_per_subset`, `scoring_seconds`. Empty where the store has no LDS of the
    experiment.
    """
    rows = most_retrained(results.lds)
    shown = rows[(rows["target"] == MEAN) | (rows["kind"] == "group")]
    return shown.sort_values([*STUDY, "method"], kind="stable", ignore_index=True)[COLUMNS]


@once
def lds_differences(results: Results) -> pd.DataFrame:
    """One row per study, kind and two methods: the mean LDS of the first less that of the second.

    `lds_difference_low` and `lds_difference_high` are the 95% percentiles of the differences in the same resamples of
    the same subsets, from ten subsets on; `verdict` is `apart`, or `within noise` where they hold zero. Methods that
    were not held against the same fits, or whose mean is not known, have no row.
    """
    means = mean_lds(results.lds)
    drawn = {
        (key, method): results.made_with("lds", key, method)
        for key, method in means[["lds_key", "method"]].drop_duplicates().itertuples(index=False, name=None)
    }
    rows = [
        {**dict(zip([*STUDY, "kind"], study, strict=True)), **row}
        for study, of_study in means.groupby([*STUDY, "kind"], sort=False)
        for row in _pairs(of_study.sort_values("method").to_dict("records"), drawn)
    ]
    return pd.DataFrame(rows, columns=DIFFERENCE_COLUMNS)


def _pairs(
    rows: list[dict[Hashable, Any]], drawn: Mapping[tuple[str, str], Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    for first, second in combinations(rows, 2):
        one, other = (drawn[row["lds_key"], row["method"]] for row in (first, second))
        if "resampled_means" not in one or one["fits"] != other.get("fits"):
            continue
        resampled = [np.array(of["resampled_means"][first["kind"]], dtype=np.float64) for of in (one, other)]
        low, high = _bounds(resampled[0] - resampled[1])
        yield {
            "first": first["method"],
            "second": second["method"],
            "lds_difference": first["lds"] - second["lds"],
            "lds_difference_low": low,
            "lds_difference_high": high,
            "verdict": None if np.isnan(low) else "within noise" if low <= 0 <= high else "apart",
            "num_subsets": first["num_subsets"],
        }


def _bounds(resampled: np.ndarray) -> tuple[float, float]:
    known = resampled[np.isfinite(resampled)]
    if len(known) == 0:
        return float("nan"), float("nan")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def lds_remarks(results: Results) -> list[str]:
    """A sentence on each study and kind: what its ceiling is, which methods have no room below it, who are apart."""
    table, differences = lds_table(results), lds_differences(results)
    means = table[table["target"] == MEAN]
    remarks = []
    for (seeds, share, kind), rows in means.groupby([*STUDY, "kind"], sort=False):
        pairs = differences[(differences[STUDY] == [seeds, share]).all(axis=1) & (differences["kind"] == kind)]
        where = f"{KINDS[str(kind)]}, {as_percent(share)} of train kept, {seeds} seeds"
        remarks.append(f"LDS {where}: {_of_ceiling(rows, str(seeds), _is_common(results))}{_of_pairs(pairs)}")
    return remarks


def _is_common(results: Results) -> bool:
    training = results.configuration.get("training")
    return isinstance(training, Mapping) and training.get("pairing") == "common"


def _of_ceiling(rows: pd.DataFrame, seeds: str, is_common: bool) -> str:
    """What two fits of a subset have in common, and what that leaves a method to reach."""
    row = rows.sort_values("num_subsets").iloc[-1]
    if pd.isna(row["fit_correlation"]):
        if row["fits_per_subset"] > 1:
            return "no ceiling is known of outcomes that do not vary."
        return "no ceiling is known of one fit of each subset; d3m-ray lds --fits-per-subset 2 gives one."
    has_bounds = not pd.isna(row["fit_correlation_low"])
    bounds = f" [{row['fit_correlation_low']:.2f}, {row['fit_correlation_high']:.2f}]" if has_bounds else ""
    common = f"two fits of one subset correlate {row['fit_correlation']:.2f}{bounds}"
    at_most = f", {row['ceiling_high']:.2f} at most" if has_bounds else ""
    if pd.isna(row["ceiling"]) and seeds == "base":
        return (
            f"{common}: the seeds show nothing in common, and a method that reads them may predict them all the same."
        )
    if pd.isna(row["ceiling"]):
        return (
            f"{common}: nothing that could be predicted shows above the noise of retraining{at_most}. More fits of "
            "each subset, or subsets that lack more, would tell."
        )
    told = f"{common}, so a perfect method would reach about {row['ceiling']:.2f}{at_most}."
    if seeds == "base":
        reads = "the fits differ from the base models by what they lack alone" if is_common else "the seeds are theirs"
        return f"{told} That is of what the seeds have in common; {reads}, so a method that reads them may go beyond."
    reaching = [of for of in rows.to_dict("records") if of["lds_high"] >= row["ceiling"]]
    if reaching:
        told += f" Their intervals do not tell from it: {', '.join(map(_scored, reaching))}."
    return told


def _scored(row: Mapping[Hashable, Any]) -> str:
    return f"{row['method']} {row['lds']:.2f} [{row['lds_low']:.2f}, {row['lds_high']:.2f}]"


def _of_pairs(pairs: pd.DataFrame) -> str:
    known = pairs.dropna(subset=["verdict"])
    if known.empty:
        return ""
    apart = known[known["verdict"] == "apart"]
    if apart.empty:
        return " No difference between methods is beyond noise."
    named = "; ".join(_above(row) for row in apart.to_dict("records"))
    rest = "" if len(apart) == len(known) else " Other differences are within noise."
    uncorrected = f", not corrected for {len(known)} pairs" if len(known) > 1 else ""
    return f" Apart{uncorrected}: {named}.{rest}"


def _above(row: Mapping[Hashable, Any]) -> str:
    names = (row["first"], row["second"])
    better, worse = names if row["lds_difference"] > 0 else names[::-1]
    return f"{better} above {worse} by {abs(row['lds_difference']):.2f}"
