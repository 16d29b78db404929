from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import fill_store
from odd_names import SMALL
from scipy.stats import binomtest

from d3m_ray.analysis.caveats import find_caveats
from d3m_ray.analysis.figures.forest import group_differences
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.analysis.worst_group import expected_minimum, fixed_group, group_table, worst_group_table
from d3m_ray.store.store import Store


def results_of(store: Store) -> Results:
    (results,) = read_results(store)
    return results


@pytest.mark.parametrize("sizes", [[450] * 13, [10, 100, 7], [3], [50, 50, 50, 50]])
def test_the_minimum_by_chance_is_that_of_draws(sizes: list[int]) -> None:
    draws = np.random.default_rng(0).binomial(sizes, 0.8, size=(40_000, len(sizes))) / sizes
    minima = draws.min(axis=1)
    error = minima.std() / np.sqrt(len(minima))
    assert expected_minimum(sizes, 0.8) == pytest.approx(minima.mean(), abs=5 * error + 1e-12)


def test_the_minimum_of_one_group_and_of_sure_answers_is_the_accuracy() -> None:
    assert expected_minimum([37], 0.7) == pytest.approx(0.7)
    assert expected_minimum([10, 30], 1.0) == pytest.approx(1)
    assert expected_minimum([10, 30], 0.0) == pytest.approx(0)


def test_the_worst_group_in_its_senses(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(2):
        for method, number, gain in (("random", 0, 0.0), ("trak", 50, 0.02)):
            write_trial(method, number, seed, gain)
            key = f"{method}-{number}-{seed}"
            test = store.read("trials", key, method).drop(columns="method")
            val = test.assign(split="val")
            of_group = {"ant": (0.5, 0.9), "dog": (0.9, 0.6), "worst": (0.5, 0.6)} if method == "trak" else {}
            for group, accuracies in of_group.items():
                test.loc[test["group"] == group, "accuracy"] = accuracies[seed]
            store.write("trials", key, pd.concat([val, test]), {}, method)
    results = results_of(store)
    assert fixed_group(results) == "dog"
    table = worst_group_table(results).set_index("method")
    assert table.index.tolist() == ["nothing removed", "trak"]
    base, trak = table.loc["nothing removed"], table.loc["trak"]
    assert (base["mean_of_minima"], base["minimum_of_means"]) == pytest.approx((0.7, 0.7))
    assert trak["mean_of_minima"] == pytest.approx(0.55)
    assert trak["minimum_of_means"] == pytest.approx(0.7)
    assert (trak["fixed_group"], trak["num_seeds"]) == ("dog", 2)
    assert trak["fixed_group_accuracy"] == pytest.approx(0.75)
    mean = (0.7 + 0.87 + 0.82 + 0.75) / 4
    assert trak["chance_minimum"] == pytest.approx(expected_minimum([100] * 4, mean))


def test_a_group_has_the_interval_that_its_size_gives(filled_store: Store) -> None:
    table = group_table(results_of(filled_store)).set_index(["method", "num_removed", "group"])
    row = table.loc[("trak", 200, "dog/0")]
    accuracy = 0.7 - 0.04 + 0.02 + 0.02
    assert (row["accuracy"], row["num_examples"], row["num_seeds"]) == (pytest.approx(accuracy), 50, 5)
    expected = binomtest(35, 50).proportion_ci(method="wilson")
    assert (row["wilson_low"], row["wilson_high"]) == pytest.approx((expected.low, expected.high))
    assert row["loss"] == pytest.approx(1.2 - accuracy)
    assert not {"worst", "worst_cell"} & set(table.index.get_level_values("group"))
    assert ("nothing removed", 0, "all") in table.index
    assert ("trak", 0, "all") not in table.index, "the base models stand once"


def test_without_trials_or_base_models_there_is_less(store: Store, write_trial: Callable[..., None]) -> None:
    store.write_experiment("insects-1a2b3c4d", {"dataset": "insects", "model": "tiny-bert"}, [])
    for table in (worst_group_table, group_table):
        assert table(results_of(store)).empty
    write_trial("trak", 50, 0)
    row = worst_group_table(results_of(store)).iloc[0]
    assert row["fixed_group"] is None or row.isna()["fixed_group"]
    assert np.isnan(row["fixed_group_accuracy"])


def test_a_cell_that_a_groups_name_goes_on_from_is_no_group(tmp_path: Path) -> None:
    """ant/kind is a cell of ant, and the beginning of the group ant/kind/ly."""
    store = Store(tmp_path / "store")
    fill_store(store, replace(SMALL, groups=("ant", "ant/kind/ly", "bee"), methods=("trak", "random")))
    results = results_of(store)
    table = worst_group_table(results)
    trials = results.trials[results.trials["group"] == "worst"]
    for row in table[table["num_removed"] > 0].itertuples():
        of_arm = trials[(trials["method"] == row.method) & (trials["num_removed"] == row.num_removed)]
        assert row.mean_of_minima == pytest.approx(of_arm["accuracy"].mean())
    assert set(group_differences(results, {"trak": 10})["group"]) == {"ant", "ant/kind/ly", "bee", "all", "worst"}
    small = [caveat.sentence for caveat in find_caveats(results) if caveat.kind == "small groups"]
    assert small[0].startswith(("Test groups are small, ant has", "Test groups are small, bee has"))
