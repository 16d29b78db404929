"""The arms beside each other: every metric by group, what was removed, and the models that they all start from."""

from collections.abc import Sequence

import pandas as pd

from d3m_ray.analysis.choice import REFERENCE_METHOD, arms_of, base_of, chosen_numbers
from d3m_ray.analysis.corpus import CELL, group_names, label_names, named, train_examples, trial_identities
from d3m_ray.analysis.results import Results, once
from d3m_ray.metrics.groups import CELL_SEPARATOR, METRICS, SUMMARY_GROUPS, TARGET_METRICS

ARM = ["method", "num_removed"]
COMPARED = (*METRICS, *TARGET_METRICS)
METRIC_COLUMNS = [name for metric in COMPARED for name in (metric, f"{metric}_std")]
REMOVED = "num_removed_of_group"


@once
def comparison_table(results: Results) -> pd.DataFrame:
    """The test metrics of each arm, and of the models trained on everything: one row per arm and group.

    Arms are every method at the number removed that was chosen on val, and random removal at each of these numbers that
    it has; `nothing removed` is the first. Columns: `method`, `num_removed`, `num_seeds`, `group` (`all`, `worst`,
    `worst_cell`, then each group), `num_examples`, `num_removed_of_group` and, for each of `COMPARED`, its mean over
    the seeds and `_std`, which divides by n - 1; both are NaN where a seed has none. `worst` is in each seed the group
    of lowest accuracy, with all of its metrics; `num_examples` is missing where these differ in size.
    `num_removed_of_group` is a mean over seeds too, missing of the worst group and cell, and where the store lacks what
    was removed.
    """
    trials = results.trials
    base = base_of(trials)
    shown = pd.concat([base, _at_arms(trials, _compared_arms(results))], ignore_index=True)
    groups = [*SUMMARY_GROUPS, *trial_identities(results)]
    table = _means(shown, groups)
    table.insert(5, REMOVED, _removed_of_groups(results, table))
    return table


def wide_table(table: pd.DataFrame, column: str = "accuracy") -> pd.DataFrame:
    """One column of `comparison_table`, a metric or what was removed, with a row per arm and a column per group."""
    arms = [*ARM, "num_seeds"]
    wide = table.pivot(index=arms, columns="group", values=column)
    rows = pd.MultiIndex.from_frame(table[arms].drop_duplicates())
    return wide.reindex(index=rows, columns=list(dict.fromkeys(table["group"]))).rename_axis(columns=None).reset_index()


def base_table(results: Results) -> pd.DataFrame:
    """The test metrics of the models trained on everything: one row per summary row, group and cell.

    Columns as in `comparison_table`, without what was removed; each group is followed by its cells.
    """
    base = base_of(results.trials)
    found, labels = set(base["group"]), label_names(results)
    groups = [
        name
        for group in trial_identities(results)
        for name in (group, *(f"{group}{CELL_SEPARATOR}{label}" for label in labels))
        if name in found
    ]
    return _means(base, [*SUMMARY_GROUPS, *groups])


@once
def removed_table(results: Results) -> pd.DataFrame:
    """What each arm removed from each cell of train: one row per method, num_removed, group and label name.

    Columns: `method`, `num_removed`, `group`, `label_name`; `num_removed_of_cell`, the mean over `num_seeds` trials
    (of a rule that draws nothing they are all alike); `num_train_of_cell`; `share` of what was removed that is of the
    cell; `share_by_chance`, that of random removal: the cell's share of train; and `ratio`, the first over the second,
    NaN of a cell that train has no example of. Only trials count whose removed examples are stored.
    """
    train, removed = train_examples(results), results.removed_cells
    removed = removed.assign(label_name=named(results, removed["label"]))
    cells = pd.MultiIndex.from_product([group_names(results), label_names(results)], names=CELL)
    sizes = train.groupby(CELL).size().reindex(cells, fill_value=0).rename("num_train_of_cell")
    arms = removed.groupby(ARM)["seed"].nunique().rename("num_seeds")
    totals = removed.groupby([*ARM, *CELL])["num_removed_of_cell"].sum()
    table = arms.reset_index().merge(sizes.reset_index(), how="cross").join(totals, on=[*ARM, *CELL])
    of_cell = table["num_removed_of_cell"].fillna(0) / table["num_seeds"]
    share, by_chance = of_cell / table["num_removed"], table["num_train_of_cell"] / len(train)
    shares = {"share": share, "share_by_chance": by_chance, "ratio": share / by_chance}
    columns = [*ARM, *CELL, "num_removed_of_cell", "num_seeds", "num_train_of_cell"]
    return table.assign(num_removed_of_cell=of_cell)[columns].assign(**shares)


def _compared_arms(results: Results) -> list[tuple[str, int]]:
    """Each method at its number, random removal last, at the numbers of the others."""
    chosen = chosen_numbers(results)
    arms = [(method, number) for method, number in chosen.items() if method != REFERENCE_METHOD]
    if REFERENCE_METHOD not in chosen:
        return arms
    rows = arms_of(results.trials)
    stored = set(rows.loc[rows["method"] == REFERENCE_METHOD, "num_removed"].tolist())
    numbers = sorted({number for _, number in arms} & stored) or [chosen[REFERENCE_METHOD]]
    return [*arms, *((REFERENCE_METHOD, number) for number in numbers)]


def _at_arms(trials: pd.DataFrame, arms: Sequence[tuple[str, int]]) -> pd.DataFrame:
    """The rows of these arms, in their order."""
    order = pd.DataFrame(arms, columns=ARM).astype({"num_removed": "int64"})
    return order.merge(arms_of(trials), on=ARM)


def _means(trials: pd.DataFrame, groups: Sequence[str]) -> pd.DataFrame:
    """Mean and standard deviation over the seeds of every metric, arms in their order, groups in that given."""
    rows = trials[trials["group"].isin(groups)]
    by_group = rows.groupby([*ARM, "group"], sort=False)
    metrics = by_group[list(COMPARED)].agg(["mean", "std"])
    metrics.columns = pd.Index(METRIC_COLUMNS)
    num_known = by_group[list(COMPARED)].count()
    for metric in COMPARED:
        metrics.loc[num_known[metric] < by_group.size(), [metric, f"{metric}_std"]] = float("nan")
    sizes = by_group["num_examples"].agg(["min", "max"])
    num_examples = sizes["min"].where(sizes["min"] == sizes["max"]).astype("Int64")
    heads = pd.DataFrame({"num_seeds": by_group["seed"].nunique(), "num_examples": num_examples})
    table = heads.join(metrics).reset_index()
    places = {arm: place for place, arm in enumerate(rows[ARM].drop_duplicates().itertuples(index=False, name=None))}
    table["arm"] = [places[arm] for arm in table[ARM].itertuples(index=False, name=None)]
    table["place"] = table["group"].map({group: place for place, group in enumerate(groups)})
    ordered = table.sort_values(["arm", "place"], ignore_index=True)
    return ordered[[*ARM, "num_seeds", "group", "num_examples", *METRIC_COLUMNS]]


def _removed_of_groups(results: Results, table: pd.DataFrame) -> pd.Series:
    """What of each row's group its arm removed: all of `all`, nothing where nothing goes."""
    by_group = removed_table(results).groupby([*ARM, "group"])["num_removed_of_cell"].sum()
    known = table[[*ARM, "group"]].join(by_group, on=[*ARM, "group"])["num_removed_of_cell"]
    known = known.mask((table["num_removed"] == 0) & ~table["group"].isin(SUMMARY_GROUPS), 0.0)
    return known.mask(table["group"] == "all", table["num_removed"].astype("float64"))
