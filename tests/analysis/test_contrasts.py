from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_results import Simulated, simulate
from made_up_store import MadeUp, fill_store
from scipy.stats import ttest_1samp

from d3m_ray.analysis.choice import chosen_numbers
from d3m_ray.analysis.contrasts import COLUMNS, contrast_table, declared_table
from d3m_ray.analysis.power import smallest_difference
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.analysis.statistics import holm, sign_flip_test
from d3m_ray.store.store import Store

MADE = MadeUp(
    methods=("trak", "random"), numbers=(20, 40), seeds=(0, 1, 2, 3, 5), num_train=80, num_val=80, num_test=160
)
KEY = ["method", "num_removed", "reference", "measure"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    store = Store(tmp_path_factory.mktemp("contrasts") / "store")
    fill_store(store, MADE)
    (found,) = read_results(store)
    return found


@pytest.fixture(scope="module")
def table(results: Results) -> pd.DataFrame:
    return contrast_table(results)


def test_every_arm_stands_against_its_references(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(COLUMNS)
    arms = [("balanced", 120, "base"), *[("trak", k, of) for k in (20, 40) for of in ("random", "base")]]
    assert table[KEY].apply(tuple, axis=1).tolist() == [
        (*arm, of) for arm in arms for of in ("worst", "worst_cell", "all")
    ]


def test_a_row_says_what_the_paired_trials_say(results: Results, table: pd.DataFrame) -> None:
    row = table.set_index(KEY).loc[("trak", 40, "random", "worst_cell")]
    trials = results.trials[results.trials["group"] == "worst_cell"]
    accuracies = trials.pivot(index="seed", columns=["method", "num_removed"], values="accuracy")
    differences = accuracies[("trak", 40)] - accuracies[("random", 40)]
    test = ttest_1samp(differences, 0)
    assert row["seeds"] == "0 1 2 3 5"
    assert [float(value) for value in row["differences"].split()] == pytest.approx(differences.tolist(), abs=1e-6)
    assert (row["num_pairs"], row["difference"]) == (5, pytest.approx(differences.mean()))
    interval = test.confidence_interval(0.95)
    assert (row["t_low"], row["t_high"]) == pytest.approx((interval.low, interval.high))
    assert (row["p_t"], row["p_flip"]) == pytest.approx((test.pvalue, sign_flip_test(differences)))
    assert row["boot_low"] <= row["t_low"] < row["t_high"] <= row["boot_high"]
    assert row["p_boot"] >= row["p_t"]
    error = np.sqrt(differences.var() / 5 + row["test_set_variance"])
    assert row["boot_error"] == pytest.approx(error)


def test_the_rows_of_a_reference_and_measure_are_adjusted_together(table: pd.DataFrame) -> None:
    for _, family in table.groupby(["reference", "measure"]):
        np.testing.assert_allclose(family["p_holm"], holm(family["p_boot"]))
        for row in family.itertuples():
            expected = smallest_difference(row.deviation, 5, 0.05 / len(family), row.test_set_variance)
            assert row.smallest_difference == pytest.approx(expected), "at so many seeds it is all one"


def test_one_contrast_an_arm_is_declared_by_val(results: Results, table: pd.DataFrame) -> None:
    declared = declared_table(results).set_index("method")
    chosen = {method: number for method, number in chosen_numbers(results).items() if method != "random"}
    assert declared["num_removed"].to_dict() == chosen
    assert declared["reference"].to_dict() == {"balanced": "base", "trak": "random"}
    assert declared["num_numbers"].to_dict() == {"balanced": 1, "trak": 2}
    assert (declared["measure"] == "worst").all()
    np.testing.assert_allclose(declared["p_holm"], holm(declared["p_choice"]))
    assert (declared["p_choice"] >= declared["p_boot"] - 1e-6).all()
    of_trak = table.set_index(KEY).loc[("trak", declared.loc["trak", "num_removed"], "random", "worst")]
    assert declared.loc["trak", "difference"] == of_trak["difference"]
    against_base = declared_table(results, "base").set_index("method")
    assert (against_base["reference"] == "base").all()
    assert against_base["num_removed"].to_dict() == chosen


def test_one_fit_is_no_pair(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(6):
        write_trial("trak", 50, seed, 0.01 * seed, fit_key=f"shared-{seed}" if seed < 2 else f"trak-{seed}")
        write_trial("random", 50, seed, 0.0, fit_key=f"shared-{seed}" if seed < 2 else f"random-{seed}")
    (results,) = read_results(store)
    row = contrast_table(results).iloc[0]
    assert (row["num_pairs"], row["seeds"]) == (4, "2 3 4 5")
    assert row["difference"] == pytest.approx(0.035)
    bounds = ["t_low", "t_high", "boot_low", "boot_high", "p_t", "p_flip", "p_boot", "p_holm", "smallest_difference"]
    assert row[bounds].isna().all(), "too few"
    assert row["num_seeds_for_2_points"] > 5, "by the spread that four have"


def test_without_answers_the_finite_test_set_is_not_known(filled_store: Store) -> None:
    (results,) = read_results(filled_store)
    table = contrast_table(results)
    assert table[["boot_low", "boot_high", "p_boot", "p_holm"]].isna().all(axis=None)
    assert table[["t_low", "p_t", "p_flip", "smallest_difference"]].notna().all(axis=None)


def test_random_removal_of_none_is_the_base(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(2):
        write_trial("random", 0, seed)
        write_trial("group_dro", 0, seed, 0.05, fit_key=f"dro-{seed}", objective="group_dro")
    (results,) = read_results(store)
    assert set(contrast_table(results)["reference"]) == {"base"}
    assert declared_table(results)["num_pairs"].tolist() == [2], "one number needs no choice on val"


def test_without_arms_the_tables_are_empty(store: Store, write_trial: Callable[..., None]) -> None:
    store.write_experiment("insects-1a2b3c4d", {"dataset": "insects", "model": "tiny-bert"}, [])
    (results,) = read_results(store)
    assert list(contrast_table(results).columns) == list(COLUMNS)
    assert contrast_table(results).empty
    assert declared_table(results).empty
    write_trial("random", 50, 0)
    (results,) = read_results(store)
    assert contrast_table(results).empty
    assert declared_table(results).empty


def test_a_caller_may_change_what_it_got(results: Results) -> None:
    got = contrast_table(results)
    got["difference"] = 9.0
    assert (contrast_table(results)["difference"] < 1).all()


def test_fixed_effects_of_examples_widen_the_second_interval(tmp_path: Path) -> None:
    """Arms that answer some examples otherwise under every seed: chance in the test set is the same in all pairs."""
    made = Simulated(methods=("trak",), numbers=(50,), fixed=1.5, noise=0.05, luck=0.01)
    tables = [contrast_table(simulate(made, draw, tmp_path)) for draw in range(4)]
    rows = pd.concat(tables).query("reference == 'base' and measure == 'all'")
    widths = (rows["boot_high"] - rows["boot_low"]).mean(), (rows["t_high"] - rows["t_low"]).mean()
    assert widths[0] > 1.2 * widths[1]


def test_numbers_that_nothing_compares_with_were_tried_all_the_same(tmp_path: Path) -> None:
    """Val chose among them: the p value allows for all."""
    results = simulate(Simulated(("trak",)), 0, tmp_path)
    trials, chosen = results.all_trials, chosen_numbers(results)["trak"]
    compared = (trials["method"] != "random") | (trials["num_removed"] == chosen)
    kept = Results(results.store, results.record, trials[compared & (trials["num_removed"] > 0)])
    vars(kept)["answers"] = results.answers
    (row,) = declared_table(kept).to_dict("records")
    assert row["num_numbers"] == 3
    assert row["choice_correlation"] > 0.99, "what is not known is not taken for none"
    assert row["p_choice"] > max(row["p_t"], row["p_boot"])
