from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp
from scipy.stats import rankdata

from d3m_ray.analysis.agreement import COLUMNS, agreement_table
from d3m_ray.analysis.results import Results
from d3m_ray.store.experiments import Experiment, PlannedTrial
from d3m_ray.store.store import Store

METHODS = ("trak", "ekfac", "bm25")
NUM_EXAMPLES = 40
NUMBERS = (3, 10, 50)


def results_of(store: Store, alignments: dict[str, np.ndarray], numbers: tuple[int, ...] = NUMBERS) -> Results:
    plan = [PlannedTrial("trak", number, seed) for number in (0, *numbers) for seed in (0, 1)]
    plan.append(PlannedTrial("trak_heuristic", None, 0))
    record = Experiment("insects", {"dataset": "insects", "model": "tiny-bert"}, plan)
    found = Results(store, record, store.read_all("trials"))
    ids = {name: [f"train/{row}" for row in range(len(values))] for name, values in alignments.items()}
    found.__dict__["alignments"] = {
        name: pd.DataFrame({"example_id": ids[name], "group": "ant", "label": 0, "alignment": values})
        for name, values in alignments.items()
    }
    return found


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def alignments() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shared = rng.normal(size=NUM_EXAMPLES)
    return {name: np.round(shared + rng.normal(size=NUM_EXAMPLES), 1) for name in METHODS}  # with ties


def test_every_pair_has_its_correlations_and_overlaps(store: Store, alignments: dict[str, np.ndarray]) -> None:
    table = agreement_table(results_of(store, alignments))
    assert list(table) == COLUMNS
    pairs = list(combinations(sorted(METHODS), 2))
    assert len(table) == len(pairs) * 4, "two correlations, and the numbers that train has examples for"
    by_measure = table.set_index(["first", "second", "measure"]).sort_index()
    for first, second in pairs:
        one, other = alignments[first], alignments[second]
        pearson, spearman = (by_measure.loc[(first, second, m), "value"].item() for m in ("pearson", "spearman"))
        assert pearson == pytest.approx(np.corrcoef(one, other)[0, 1])
        assert spearman == pytest.approx(np.corrcoef(rankdata(one), rankdata(other))[0, 1])
        for row in by_measure.loc[(first, second, "overlap")].itertuples():
            lowest = [sorted(range(NUM_EXAMPLES), key=lambda i: of[i])[: row.num_removed] for of in (one, other)]
            assert row.value == len(set(lowest[0]) & set(lowest[1])) / row.num_removed
            assert row.by_chance == row.num_removed / NUM_EXAMPLES
    assert table["num_removed"].dtype == "Int64"
    assert table.loc[table["measure"] == "overlap", "num_removed"].unique().tolist() == [3, 10]
    assert table.loc[table["measure"] != "overlap", "num_removed"].isna().all()


def test_what_chance_gives_is_what_unrelated_alignments_overlap_by(store: Store) -> None:
    rng = np.random.default_rng(1)
    rows = [
        agreement_table(results_of(store, {name: rng.normal(size=NUM_EXAMPLES) for name in ("a", "b")}, (10,)))
        for _ in range(40)
    ]
    means = pd.concat(rows).groupby("measure")["value"].mean()
    assert means["overlap"] == pytest.approx(10 / NUM_EXAMPLES, abs=0.06)
    assert means["pearson"] == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("level", [0.0, 1.0, 1e9])
def test_an_alignment_that_is_the_same_for_all_agrees_with_nothing(
    store: Store, alignments: dict[str, np.ndarray], level: float
) -> None:
    table = agreement_table(results_of(store, {"flat": np.full(NUM_EXAMPLES, level), "trak": alignments["trak"]}))
    assert len(table) == 4
    assert table["value"].isna().all()


def test_an_alignment_that_differs_by_rounding_alone_has_no_correlation(
    store: Store, alignments: dict[str, np.ndarray]
) -> None:
    flat = 1.0 + np.arange(NUM_EXAMPLES) % 2 * 2.0**-52
    table = agreement_table(results_of(store, {"flat": flat, "trak": alignments["trak"]})).set_index("measure")
    assert np.isnan(table.loc["pearson", "value"])


def test_only_examples_that_both_have_are_compared(store: Store, alignments: dict[str, np.ndarray]) -> None:
    shorter = {"trak": alignments["trak"], "ekfac": alignments["ekfac"][:30]}
    table = agreement_table(results_of(store, shorter))
    assert set(table["num_examples"]) == {30}
    pearson = table.set_index("measure").loc["pearson", "value"]
    assert pearson == pytest.approx(np.corrcoef(alignments["trak"][:30], alignments["ekfac"][:30])[0, 1])


@pytest.mark.parametrize("methods", [("trak",), ()])
def test_one_method_has_none_to_agree_with(
    store: Store, alignments: dict[str, np.ndarray], methods: tuple[str, ...]
) -> None:
    table = agreement_table(results_of(store, {name: alignments[name] for name in methods}))
    assert table.empty
    assert list(table) == COLUMNS
    assert table["num_removed"].dtype == "Int64"


def test_one_example_correlates_with_nothing(store: Store) -> None:
    table = agreement_table(results_of(store, {"a": np.array([0.5]), "b": np.array([0.7])}, (1,)))
    assert table["value"].isna().all()


def test_a_stored_experiment_is_read(results: Results, made: MadeUp) -> None:
    table = agreement_table(results)
    assert set(table["num_removed"].dropna()) == set(made.numbers)
    assert (table["value"] > table["by_chance"]).all(), "scores of the made-up methods are correlated"
