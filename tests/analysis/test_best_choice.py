"""An arm of a best number: its test allows for the choice, and one that takes 0 is said to remove nothing."""

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis.after_choice import MAX_CORRELATION, choice_correlation
from d3m_ray.analysis.best_choice import BestChoice, best_choices, correlation_of_best
from d3m_ray.analysis.contrasts import declared_table
from d3m_ray.analysis.headline import headline
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.store.store import Store

MADE = MadeUp(num_train=96, num_val=48, num_test=96, methods=("trak", "random"), numbers=(8, 16, 24), rules={})
GAINS = np.random.default_rng(0).normal(size=(3, 6))


def with_best(store: Store, number: int) -> Results:
    fill_store(store, MADE)
    selection = {"best_of": "trak", "numbers": [8, 16, 24], "seeds": list(MADE.seeds), "gains": GAINS.tolist()}
    for seed in MADE.seeds:
        source = store.read("trials", f"trial-{MADE.name}-trak-{number}-{seed}", "trak").drop(columns="method")
        key = f"best-{number}-{seed}"
        store.write("trials", key, source.assign(trial_key=key), {"selection": selection}, "trak_best")
    (results,) = read_results(store)
    return results


def test_the_test_of_the_best_number_allows_for_all_that_it_was_chosen_from(tmp_path) -> None:
    results = with_best(Store(tmp_path), 16)
    choice = best_choices(results)["trak_best"]
    assert (choice.source, choice.numbers) == ("trak", (8, 16, 24))
    np.testing.assert_array_equal(choice.gains.to_numpy(), GAINS.T)
    rows = declared_table(results).set_index("method")
    best, trak = rows.loc["trak_best"], rows.loc["trak"]
    assert (best["num_removed"], best["num_numbers"], best["num_pairs"]) == (16, 3, 6)
    test = results.trials[results.trials["group"] == "worst"].pivot(
        index="seed", columns=["method", "num_removed"], values="accuracy"
    )
    differences = pd.DataFrame({k: test["trak", k] - test["random", k] for k in (8, 16, 24)})
    gains = pd.DataFrame(GAINS.T, index=list(MADE.seeds))
    assert best["choice_correlation"] == pytest.approx(choice_correlation([gains], [differences]), abs=1e-3)
    assert best["choice_correlation"] != trak["choice_correlation"]
    assert best["p_choice"] >= best["p_t"]
    assert "trak_best (16 train examples removed), the best of 3 numbers on val" in " ".join(headline(results).details)


def test_where_too_little_is_stored_the_choice_is_taken_for_all_luck() -> None:
    gains = pd.DataFrame({8: [0.1, 0.2], 16: [0.3, 0.1]}, index=[0, 1])
    choice = BestChoice("trak", (8, 16), gains)
    assert correlation_of_best(choice, {}) == MAX_CORRELATION
    one_seed = {number: pd.Series([0.1], index=[0]) for number in (8, 16)}
    assert correlation_of_best(choice, one_seed) == MAX_CORRELATION


def test_an_arm_that_takes_nothing_is_said_to(tmp_path) -> None:
    results = with_best(Store(tmp_path), 0)
    assert "trak_best" not in set(declared_table(results)["method"])
    assert headline(results).sentence.endswith(
        " trak_best removes nothing: on val no number is shown to raise the target."
    )
