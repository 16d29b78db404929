import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store
from odd_names import SMALL

from d3m_ray.analysis.choice import BASE, base_of, chosen_numbers
from d3m_ray.analysis.comparison import COMPARED, base_table, comparison_table, removed_table, wide_table
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store

SUMMARIES = ["all", "worst", "worst_cell"]
Tables = Callable[[Results], pd.DataFrame]


def naive_rows(results: Results, method: str, number: int, group: str) -> pd.DataFrame:
    """The test rows of an arm and group; the base model's under any method's name."""
    trials = results.all_trials
    rows = trials[(trials["split"] == "test") & (trials["num_removed"] == number) & (trials["group"] == group)]
    if method == BASE:
        return rows[rows["objective"] == "erm"].drop_duplicates("seed")
    return rows[rows["method"] == method]


def check_metrics(row: pd.Series, rows: pd.DataFrame) -> None:
    assert row["num_seeds"] == len(rows)
    for metric in COMPARED:
        values = rows[metric].tolist()
        known = [value for value in values if not np.isnan(value)]
        if len(known) < len(values):
            assert np.isnan(row[metric])
            assert np.isnan(row[f"{metric}_std"])
        else:
            assert row[metric] == pytest.approx(fmean(values))
            assert row[f"{metric}_std"] == pytest.approx(stdev(values))


def test_the_comparison_has_every_arm_at_its_chosen_number(results: Results, made: MadeUp) -> None:
    table = comparison_table(results)
    chosen = chosen_numbers(results)
    arms = list(table[["method", "num_removed"]].drop_duplicates().itertuples(index=False, name=None))
    others = [(method, chosen[method]) for method in sorted(set(chosen) - {"random"})]
    numbers = sorted({number for _, number in others} & set(made.numbers))
    assert arms == [(BASE, 0), *others, *(("random", number) for number in numbers)]
    assert set(made.rules) <= {method for method, _ in arms}
    groups = [*SUMMARIES, *sorted(made.groups)]
    assert table["group"].tolist() == groups * len(arms)


def test_the_metrics_are_means_over_seeds(results: Results) -> None:
    table = comparison_table(results)
    for _, row in table[table["method"].isin([BASE, "trak", "random"])].iterrows():
        rows = naive_rows(results, row["method"], row["num_removed"], row["group"])
        check_metrics(row, rows)
        sizes = set(rows["num_examples"])
        assert (row["num_examples"] in sizes) if len(sizes) == 1 else pd.isna(row["num_examples"])


def test_a_metric_that_a_seed_lacks_has_no_mean() -> None:
    """Else the mean over the other seeds would stand under the number of all of them."""
    rows = pd.DataFrame(
        {
            "method": "trak", "num_removed": 0, "objective": "erm", "seed": [0, 1], "split": "test",
            "group": "worst_cell", "num_examples": [50, 60], **{metric: [0.5, 0.7] for metric in COMPARED},
            "fpr": [0.3, np.nan],
        }
    )  # fmt: skip
    from d3m_ray.analysis.comparison import _means

    (row,) = _means(base_of(rows), SUMMARIES).to_dict("records")
    assert (row["method"], row["num_seeds"], row["accuracy"]) == (BASE, 2, pytest.approx(0.6))
    assert np.isnan(row["fpr"])
    assert np.isnan(row["fpr_std"])
    assert pd.isna(row["num_examples"]), "the worst cell is not of one size"


def test_what_was_removed_stands_beside_each_group(results: Results) -> None:
    table = comparison_table(results)
    groups = results.examples[results.examples["split"] == "train"].set_index("example_id")["group"]
    removals = {method: results.removals_of(method) for method in table["method"].unique()}
    for _, row in table.iterrows():
        removed = removals[row["method"]]
        of_arm = removed[removed["num_removed"] == row["num_removed"]]
        if row["group"] in ("worst", "worst_cell"):
            assert np.isnan(row["num_removed_of_group"])
        elif row["group"] == "all":
            assert row["num_removed_of_group"] == row["num_removed"]
        else:
            num_removed = sum(groups[example_id] == row["group"] for example_id in of_arm["example_id"])
            assert row["num_removed_of_group"] == pytest.approx(num_removed / row["num_seeds"])


def test_a_wide_table_has_an_arm_per_row(results: Results, made: MadeUp) -> None:
    table = comparison_table(results)
    for column in ("accuracy", "num_removed_of_group"):
        wide = wide_table(table, column)
        assert list(wide) == ["method", "num_removed", "num_seeds", *SUMMARIES, *sorted(made.groups)]
        assert wide["method"].tolist() == table["method"].iloc[:: len(made.groups) + 3].tolist()
        for _, row in wide.iterrows():
            of_arm = table[(table["method"] == row["method"]) & (table["num_removed"] == row["num_removed"])]
            np.testing.assert_array_equal(row[of_arm["group"].tolist()].astype(float), of_arm[column].astype(float))


def test_the_base_models_have_a_row_per_group_and_cell(results: Results, made: MadeUp) -> None:
    table = base_table(results)
    cells = [[group, *(f"{group}/{label}" for label in made.label_names)] for group in sorted(made.groups)]
    assert table["group"].tolist() == [*SUMMARIES, *(name for of_group in cells for name in of_group)]
    assert set(table["method"]) == {BASE}
    for _, row in table.iterrows():
        check_metrics(row, naive_rows(results, BASE, 0, row["group"]))


def test_what_was_removed_is_counted_per_cell(results: Results, made: MadeUp) -> None:
    table = removed_table(results)
    train = results.examples[results.examples["split"] == "train"].set_index("example_id")
    removals = pd.concat([results.removals_of(method) for method in (*made.methods, *made.rules)])
    removed = removals.join(train[["group", "label_name"]], on="example_id")
    arms = {(method, number) for method in made.methods for number in made.numbers}
    arms |= {(rule, number) for rule, (number, _) in made.rules.items() if number}
    assert set(table[["method", "num_removed"]].itertuples(index=False, name=None)) == arms
    assert len(table) == len(arms) * len(made.groups) * len(made.label_names)
    for row in table.itertuples():
        in_cell = (train["group"] == row.group) & (train["label_name"] == row.label_name)
        of_arm = removed[(removed["method"] == row.method) & (removed["num_removed"] == row.num_removed)]
        num = ((of_arm["group"] == row.group) & (of_arm["label_name"] == row.label_name)).sum() / len(made.seeds)
        assert row.num_removed_of_cell == pytest.approx(num)
        assert (row.num_seeds, row.num_train_of_cell) == (len(made.seeds), in_cell.sum())
        assert row.share == pytest.approx(num / row.num_removed)
        assert row.share_by_chance == pytest.approx(in_cell.mean())
        assert row.ratio == pytest.approx(row.share / row.share_by_chance)
    arm = table.groupby(["method", "num_removed"])
    np.testing.assert_allclose(arm["share"].sum(), 1)
    np.testing.assert_allclose(arm["share_by_chance"].sum(), 1)


def test_a_cell_that_train_lacks_has_no_ratio(
    results: Results, made: MadeUp, other_results: Callable[..., Results]
) -> None:
    first = {"group": made.groups[0], "label_name": made.label_names[0]}
    is_gone = (results.examples[list(first)] == pd.Series(first)).all(axis=1) & (results.examples["split"] == "train")
    fewer = other_results(examples=results.examples[~is_gone])
    rows = removed_table(fewer).query("group == @first['group'] and label_name == @first['label_name']")
    assert (rows["num_train_of_cell"] == 0).all()
    assert (rows["share_by_chance"] == 0).all()
    assert rows["ratio"].isna().all()


def test_random_removal_stands_alone_at_its_own_number(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fill_store(store, replace(SMALL, methods=("random",), rules={}, seeds=(0,)))
    (results,) = read_results(store)
    table = wide_table(comparison_table(results))
    assert table["method"].tolist() == [BASE, "random"]
    assert table["num_removed"].tolist() == [0, chosen_numbers(results)["random"]]


@pytest.mark.parametrize("tables", [comparison_table, base_table, removed_table])
def test_what_the_store_lacks_is_empty(tables: Tables, results: Results, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    store.write_experiment("bare", {"dataset": "insects", "model": "tiny-bert"}, [])
    (bare,) = read_results(store)
    assert tables(bare).empty
    assert list(tables(bare)) == list(tables(results)), "with the same columns"
    assert wide_table(comparison_table(bare)).empty


def test_without_the_corpus_what_was_removed_is_counted_by_the_alignments(results: Results, tmp_path: Path) -> None:
    store = Store(shutil.copytree(str(results.store), tmp_path / "store"))
    shutil.rmtree(tmp_path / "store" / "examples")
    (without,) = read_results(store)
    pd.testing.assert_frame_equal(removed_table(without), removed_table(results))
    shutil.rmtree(tmp_path / "store" / "alignments")
    (without,) = read_results(store)
    assert removed_table(without).empty
    removed = comparison_table(without).query("group not in ('all', 'worst', 'worst_cell') and num_removed > 0")
    assert len(removed)
    assert removed["num_removed_of_group"].isna().all(), "unknown is not zero"
