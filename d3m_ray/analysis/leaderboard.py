"""Attribution methods beside each other by everything that judges them, each cell with its interval."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from d3m_ray.analysis.lds import MEAN, STUDY, as_percent, lds_differences, lds_table
from d3m_ray.analysis.removal_effects import effect_values
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import t_interval
from d3m_ray.wording import counted

METHOD = "method"
BEST, AS_GOOD, APART, UNKNOWN = "best", "within noise", "apart", "not known"
EFFECTS = {"target": 1.0, "loss": -1.0, "wga": 1.0}
"""What removal changes on test, and the sign under which more is better."""


@dataclass(frozen=True)
class Measure:
    """One column of the leaderboard."""

    name: str
    heading: str
    better: float
    """1 where more is better, -1 where less is."""


LDS_MEASURES = {
    ("base", "group"): Measure("same_seed_group_lds", "LDS, same seeds: groups", 1.0),
    ("base", "alignment"): Measure("same_seed_alignment_lds", "LDS, same seeds: alignment", 1.0),
    ("own", "group"): Measure("across_seeds_group_lds", "LDS, across seeds: groups", 1.0),
    ("own", "alignment"): Measure("across_seeds_alignment_lds", "LDS, across seeds: alignment", 1.0),
}
"""By whose seeds a subset's fits have, and the kind of target."""
EFFECT_MEASURES = {
    "target": Measure("target_effect", "target", EFFECTS["target"]),
    "loss": Measure("loss_effect", "loss", EFFECTS["loss"]),
    "wga": Measure("wga_effect", "WGA", EFFECTS["wga"]),
}
"""What removal of the largest number that was tried changes on test, less what random removal of as many does."""
MEASURES = (*LDS_MEASURES.values(), *EFFECT_MEASURES.values())


@once
def leaderboard_table(results: Results) -> pd.DataFrame:
    """One row per attribution method: each of `MEASURES` as NAME, NAME_low, NAME_high and NAME_standing; its cost.

    An LDS is the mean over groups, or that of the alignment, with its bootstrap interval over subsets; where a study
    has several shares, of the largest kept. Effects are of the largest number removed, on test, less random removal of
    as many at the same seeds, with Student's interval. A standing is `best`; `within noise` where the 95% interval of
    the paired difference to the best holds zero; `apart`; or `not known`, of too few pairs. `num_removed` is that of
    the effects, `scoring_seconds` the most that scores took. Empty where the store lacks the LDS of either seeds.
    """
    lds = _largest_share(_means(results))
    if set(lds["subset_seeds"]) != {"base", "own"}:
        return pd.DataFrame(columns=[METHOD])
    columns: list[pd.DataFrame | pd.Series] = [lds.groupby(METHOD)["scoring_seconds"].max()]
    pairs = lds_differences(results).merge(lds[STUDY].drop_duplicates(), on=STUDY)
    for (seeds, kind), measure in LDS_MEASURES.items():
        of_study = lds[(lds["subset_seeds"] == seeds) & (lds["kind"] == kind)].set_index(METHOD)
        of_pairs = pairs[(pairs["subset_seeds"] == seeds) & (pairs["kind"] == kind)]
        values = of_study[["lds", "lds_low", "lds_high"]].dropna(subset=["lds"])
        columns.append(_named(values, measure, _verdicts(of_pairs)))
    columns += _effects(results)
    table = pd.concat(columns, axis=1).rename_axis(METHOD).reset_index()
    known = {m.name: int(table[m.name].notna().sum()) for m in MEASURES if m.name in table}
    first = max(known, key=lambda name: known[name])  # of measures that as many methods have, the first
    return table.sort_values(first, ascending=False, kind="stable", na_position="last", ignore_index=True)


def ceilings(results: Results) -> Mapping[str, tuple[float, float, float]]:
    """By the name of an LDS measure across seeds, what a perfect method would reach, with its bounds.

    Under the base models' seeds it is none: a method that reads these models may go beyond what seeds have in common.
    """
    lds = _largest_share(_means(results)).query("subset_seeds == 'own'")
    known = {}
    for (seeds, kind), measure in LDS_MEASURES.items():
        rows = lds[(lds["subset_seeds"] == seeds) & (lds["kind"] == kind)].dropna(subset=["ceiling"])
        if len(rows):
            row = rows.sort_values("num_subsets").iloc[-1]
            known[measure.name] = (row["ceiling"], row["ceiling_low"], row["ceiling_high"])
    return known


def _means(results: Results) -> pd.DataFrame:
    table = lds_table(results)
    return table[table["target"] == MEAN]


def _largest_share(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each kind of seeds, the rows of the study that keeps the most of train."""
    return rows[rows["keep_share"] == rows.groupby("subset_seeds")["keep_share"].transform("max")]


def _verdicts(pairs: pd.DataFrame) -> dict[frozenset[Hashable], str]:
    known = pairs.dropna(subset=["verdict"])
    names = known[["first", "second"]].itertuples(index=False, name=None)
    return {frozenset(pair): verdict for pair, verdict in zip(names, known["verdict"], strict=True)}


def _named(values: pd.DataFrame, measure: Measure, verdicts: Mapping[frozenset[Hashable], str]) -> pd.DataFrame:
    """The value and bounds of each method under the measure's name, and how it stands to the best of them."""
    named = values.set_axis([measure.name, f"{measure.name}_low", f"{measure.name}_high"], axis=1)
    if named.empty:
        return named
    best = (measure.better * named[measure.name]).idxmax()
    standings = [BEST if m == best else verdicts.get(frozenset((m, best)), UNKNOWN) for m in named.index]
    return named.assign(**{f"{measure.name}_standing": standings})


def _effects(results: Results) -> list[pd.DataFrame | pd.Series]:
    """The columns of what removal changes."""
    values = effect_values(results).query("split == 'test' and reference == 'random'")
    if values.empty:
        return []
    values = values[values["num_removed"] == values["num_removed"].max()]
    columns: list[pd.DataFrame | pd.Series] = [values.groupby(METHOD)["num_removed"].max()]
    for name, measure in EFFECT_MEASURES.items():
        by_seed = values[values["effect_on"] == name].pivot(index="seed", columns=METHOD, values="effect")
        intervals = {method: t_interval(by_seed[method]) for method in by_seed}
        rows = {m: (each.mean, each.low, each.high) for m, each in intervals.items() if each.num_values}
        means = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"]).rename_axis(METHOD)
        columns.append(_named(means, measure, _verdicts_of_seeds(by_seed)))
    return columns


def _verdicts_of_seeds(by_seed: pd.DataFrame) -> dict[frozenset[Hashable], str]:
    """How each two methods [columns] stand to each other, by their differences at the same seeds [rows]."""
    verdicts = {}
    for first in by_seed:
        for second in by_seed:
            interval = t_interval(by_seed[first] - by_seed[second])
            if first != second and interval.low == interval.low:  # not NaN
                verdicts[frozenset((first, second))] = AS_GOOD if interval.low <= 0 <= interval.high else APART
    return verdicts


def leaderboard_markdown(results: Results) -> str:
    """The leaderboard as a table in Markdown, its best cells bold, and how to read it in a few sentences."""
    table, known_ceilings = leaderboard_table(results), ceilings(results)
    shown = [m for m in MEASURES if m.name in table and table[m.name].notna().any()]
    rows = [["method", *(m.heading for m in shown), "seconds"], ["---"] * (len(shown) + 2)]
    for row in table.to_dict("records"):
        rows.append([str(row[METHOD]), *(_cell(row, m) for m in shown), f"{row['scoring_seconds']:.1f}"])
    if known_ceilings:
        told = [_told(*known_ceilings[m.name]) if m.name in known_ceilings else "" for m in shown]
        rows.append(["*ceiling*", *(cell or "-" for cell in told), "-"])
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([*lines, "", " ".join([*_of_marks(), *_of_studies(results), *_of_effects(table)])])


def _cell(row: Mapping[Hashable, Any], measure: Measure) -> str:
    if pd.isna(row[measure.name]):
        return "-"
    value, low, high = (row[f"{measure.name}{end}"] for end in ("", "_low", "_high"))
    told = _told(value, low, high, signed=measure in EFFECT_MEASURES.values())
    marked = {BEST: f"**{told}**", AS_GOOD: f"{told} ~", UNKNOWN: f"{told} ?"}
    return marked.get(row[f"{measure.name}_standing"], told)


def _told(value: float, low: float, high: float, signed: bool = False) -> str:
    form = "+.2g" if signed else ".2f"
    return f"{value:{form}}" if pd.isna(low) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _of_marks() -> list[str]:
    return [
        "Bold: the highest of a column, of loss the lowest; `~`: within noise of it (the 95% interval of the paired "
        "difference holds zero, not corrected for the number of methods); `?`: not known, of too few subsets or seeds, "
        "or of other fits; `-`: the method has none."
    ]


def _of_studies(results: Results) -> list[str]:
    """What each LDS is over."""
    told = []
    for seeds, rows in _largest_share(_means(results)).groupby("subset_seeds", sort=True):
        numbers = {
            f"{counted(row['num_subsets'], 'subset')} x {counted(row['fits_per_subset'], 'fit')}"
            for row in rows.to_dict("records")
        }
        words = {"base": "same seeds", "own": "across seeds"}[str(seeds)]
        told.append(f"{words}, {as_percent(rows['keep_share'].iloc[0])} of train kept, {' or '.join(sorted(numbers))}")
    return [
        f"LDS: {'; '.join(told)}; in brackets 95% bootstrap intervals over the subsets. The ceiling is what a perfect "
        "method would reach across seeds."
    ]


def _of_effects(table: pd.DataFrame) -> list[str]:
    if "num_removed" not in table or table["num_removed"].isna().all():
        return []
    number = int(table["num_removed"].max())
    return [
        f"Effects: what removal of the {number:,} lowest changes on test, less random removal of as many, with "
        "Student's 95% interval over the seeds."
    ]
