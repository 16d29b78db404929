"""A small store of an earlier version, read: what was paid for once stays readable.

`tests/golden/store_0.1.0` is an experiment on planted text by the version and commit that its files name: trak,
trak_auto and random, 0 and 6 removed, two seeds; its checkpoint is left out. It is never made again: a later version
gets a store beside it.
"""

from pathlib import Path

import pytest

import d3m_ray
from d3m_ray.analysis.results import read_results
from d3m_ray.analysis.status import status_document
from d3m_ray.analysis.summary import summary_table
from d3m_ray.store.store import Store

ROOT = Path(__file__).resolve().parents[1] / "golden" / "store_0.1.0"
NAME = "golden"


def test_the_trials_are_what_they_were() -> None:
    trials = d3m_ray.read_trials(str(ROOT), NAME, split="test")
    worst = trials[trials["group"] == "worst"].set_index(["method", "num_removed", "seed"])["loss"]
    assert len(worst) == 12
    assert worst["trak", 6, 1] == pytest.approx(0.694157, abs=1e-6)
    assert worst["random", 6, 0] == pytest.approx(0.695701, abs=1e-6)


def test_scores_and_alignments_are_what_they_were() -> None:
    scores = d3m_ray.read_scores(str(ROOT), experiment=NAME).groupby(["method", "query_set"])["score"].sum()
    assert scores["trak", "amber"] == pytest.approx(8.1084e-05, rel=1e-4)
    assert scores["trak_auto", "pseudo_3"] == pytest.approx(-0.10622658, rel=1e-6)
    alignments = d3m_ray.read_alignments(str(ROOT), experiment=NAME).groupby("method")["alignment"]
    assert alignments.count().to_dict() == {"trak": 48, "trak_auto": 48}
    assert alignments.sum()["trak_auto"] == pytest.approx(0.00617295, rel=1e-5)


def test_what_was_removed_from_which_corpus_is_known() -> None:
    removals = d3m_ray.read_removals(str(ROOT), experiment=NAME)
    train = d3m_ray.read_examples(str(ROOT), experiment=NAME, split="train")
    assert len(removals.merge(train)) == len(removals) == 36
    assert len(d3m_ray.read_fits(str(ROOT), experiment=NAME)) == 12 * 48


def test_its_status_and_its_table_can_be_made() -> None:
    store = Store(str(ROOT))
    document = status_document(store)
    assert document["damaged"] == []
    (results,) = read_results(store)
    assert not summary_table(results).empty
