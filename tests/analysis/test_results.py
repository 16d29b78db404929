import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import MadeUp, fill_store

from d3m_ray.analysis import results as module
from d3m_ray.analysis.choice import arms_of, chosen_numbers
from d3m_ray.analysis.report.setting import setting
from d3m_ray.analysis.results import TRIAL, Results, read_results
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store

MADE = MadeUp(methods=("trak", "random"), numbers=(20, 40), seeds=(0, 3), num_train=80, num_val=80, num_test=160)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("results") / "store")
    fill_store(store, MADE)
    return store


@pytest.fixture
def store(whole: Store, tmp_path: Path) -> Store:
    """A copy that a test may spoil."""
    return Store(shutil.copytree(str(whole), tmp_path / "store"))


@pytest.fixture(scope="module")
def results(whole: Store) -> Results:
    (found,) = read_results(whole)
    return found


@pytest.mark.parametrize(
    ("alignment", "target", "explained"),
    [
        ({"target": "margin"}, "margin", "margin"),
        ({"target": "loss"}, "loss", "log likelihood (minus the loss)"),
        ({"target": "worst_loss"}, "worst_loss", "log likelihood (minus the loss)"),
        ({"target": "probability"}, "probability", "probability of the true label"),
        ({"beta": 1.0}, "margin", "margin"),
        ("of another version", "margin", "margin"),
        (None, "margin", "margin"),
    ],
)
def test_the_target_is_told_and_was_the_margin_before_there_was_one(
    results: Results, alignment: object, target: str, explained: str
) -> None:
    record = dataclasses.replace(results.record, configuration={**results.configuration, "alignment": alignment})
    asked = dataclasses.replace(results, record=record)
    assert (asked.target, asked.explained) == (target, explained)
    facts = {fact.name: fact.value for facts in setting(asked) for fact in facts.facts}
    assert facts["target of attribution"].startswith(f"{target}: ")


def test_every_trial_is_found_with_its_fit(results: Results) -> None:
    planned = {(m, k, s) for m in MADE.methods for k in (0, *MADE.numbers) for s in MADE.seeds}
    planned |= {("balanced", 120, seed) for seed in MADE.seeds}
    assert set(results.fits[TRIAL].itertuples(index=False, name=None)) == planned
    assert set(results.base_fits) == set(MADE.seeds)
    assert set(results.trials["split"]) == {"test"}
    assert set(arms_of(results.trials)["num_removed"]) == {20, 40, 120}


def test_answers_are_those_of_the_stored_fits(results: Results, whole: Store) -> None:
    assert results.answers is not None
    for key, is_correct in results.answers.is_correct.items():
        fit = whole.read("fits", key).query("split == 'test'")
        assert fit["example_id"].tolist() == results.answers.examples["example_id"].tolist()
        np.testing.assert_array_equal(is_correct, fit["label"] == fit["predicted"])
    assert set(results.answers.is_correct) == set(results.fits["fit_key"])


def test_answers_read_in_parts_are_the_same(whole: Store, results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FITS_AT_ONCE", 3)
    (again,) = read_results(whole)
    assert again.answers is not None
    assert results.answers is not None
    assert again.answers.is_correct.keys() == results.answers.is_correct.keys()
    pd.testing.assert_frame_equal(again.removed_cells, results.removed_cells)


def test_scores_come_as_a_matrix_in_train_order(results: Results, whole: Store) -> None:
    scores, rows = results.scores["trak"], whole.read_all("scores")
    assert scores.values.shape == (MADE.num_train, len(MADE.groups))
    assert scores.query_sets == tuple(MADE.groups)
    for example_id, query_set, score in rows[["example_id", "query_set", "score"]].itertuples(index=False):
        place = np.flatnonzero(scores.example_ids == example_id)[0], scores.query_sets.index(query_set)
        assert scores.values[place] == np.float32(score)
    assert results.alignments["trak"]["example_id"].tolist() == scores.example_ids.tolist()
    assert results.scores_metadata["trak"]["scoring_seconds"] == 2.5


def test_removed_cells_are_the_removed_examples_counted(results: Results) -> None:
    cells = results.examples.set_index("example_id")[["group", "label"]]
    removals = pd.concat([results.removals_of(method) for method in ("trak", "random", "balanced")])
    naive: dict[tuple[object, ...], int] = {}
    for *trial, example_id in removals[[*TRIAL, "example_id"]].itertuples(index=False):
        key = (*trial, *cells.loc[example_id])
        naive[key] = naive.get(key, 0) + 1
    columns = [*TRIAL, "group", "label", "num_removed_of_cell"]
    assert {tuple(row[:-1]): row[-1] for row in results.removed_cells[columns].itertuples(index=False)} == naive


def test_cells_of_train_are_known_from_an_alignment_where_the_corpus_is_not_stored(store: Store) -> None:
    (whole,) = read_results(store)
    shutil.rmtree(f"{store}/examples")
    (without,) = read_results(store)
    assert without.examples.empty
    pd.testing.assert_frame_equal(without.removed_cells, whole.removed_cells)


def test_what_is_not_stored_is_empty(store: Store) -> None:
    for table in ("examples", "alignments", "scores", "removals", "fits"):
        shutil.rmtree(f"{store}/{table}")
    (found,) = read_results(store)
    assert found.examples.empty
    assert found.removals_of("trak").empty
    assert found.removed_cells.empty
    assert found.train_cells.empty
    assert found.answers is None
    assert found.alignments == found.scores == found.scores_metadata == {}
    assert found.lds.empty
    assert found.failures.empty
    assert len(found.fits) == 14


def test_an_experiment_without_a_record_is_found_by_its_trials(store: Store) -> None:
    shutil.rmtree(f"{store}/experiments")
    (found,) = read_results(store)
    assert found.name == MADE.name
    assert found.configuration == {"dataset": "insects", "model": "tiny-bert"}
    assert found.label_names == ()
    assert found.alignments == {}
    assert chosen_numbers(found).keys() == {"balanced", "trak", "random"}


def test_an_experiment_of_which_nothing_is_done_is_found(store: Store) -> None:
    for table in ("trials", "fits"):
        shutil.rmtree(f"{store}/{table}")
    (found,) = read_results(store)
    assert found.trials.empty
    assert found.base_fits == {}
    assert chosen_numbers(found) == {}


def test_a_damaged_file_is_told_and_left_out(store: Store) -> None:
    path = Path(f"{store}/trials/method=trak/trial-{MADE.name}-trak-20-3.parquet")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StoreError, match="damaged"):
        read_results(store)
    told: list[str] = []
    (found,) = read_results(store, say=told.append)
    assert ("trak", 20, 3) not in set(found.fits[TRIAL].itertuples(index=False, name=None))
    assert [str(path) in line for line in told] == [True]


def test_unknown_names_and_empty_stores_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no experiment 'bees'; it has insects-1a2b3c4d"):
        read_results(store, ["bees"])
    with pytest.raises(StoreError, match="is not there"):
        read_results(Store(tmp_path / "nothing"))


def test_fits_on_other_test_examples_are_refused(store: Store) -> None:
    (found,) = read_results(store)
    key = sorted(found.fits["fit_key"])[-1]
    fit = store.read("fits", key)
    store.write("fits", key, fit[fit["example_id"] != "test/5"], {})
    with pytest.raises(StoreError, match="different test examples"):
        _ = read_results(store)[0].answers
