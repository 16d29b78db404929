"""The corpus in the store: every example with its names, train's texts where they are wanted, written once."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.corpus import store_corpus
from d3m_ray.experiment.plan import record_plan
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare
from d3m_ray.records import Examples, Splits
from d3m_ray.store.store import Store


def made(split: str, number: int) -> Examples:
    ids = [f"{split}/{row}" for row in range(number)]
    texts = [f'{split} {row}\na "line"\tмёд 🐝 ' for row in range(number)]
    rows = range(number)
    return Examples(split, ids, tuple(texts), [row % 3 for row in rows], [row // 3 % 2 for row in rows])


SPLITS = Splits(
    "insects", ("ant", "bee"), made("train", 12), made("val", 6), made("test", 6), label_names=("a", "b", "c")
)
KEY = "0123456789abcdef0123"


def keep(store: Store, has_texts: bool = True) -> tuple[pd.DataFrame, list[str]]:
    said: list[str] = []
    store_corpus(store, SPLITS, KEY, has_texts, said.append)
    return store.read_all("examples"), said


def written_at(store: Store) -> int:
    return Path(store.file_of("examples", KEY)).stat().st_mtime_ns


def test_every_example_is_kept_with_its_names_and_trains_texts(tmp_path):
    rows, said = keep(Store(tmp_path))
    assert said == []
    assert rows["data_hash"].unique().tolist() == [KEY]
    assert rows.groupby("split", sort=False).size().to_dict() == {"train": 12, "val": 6, "test": 6}
    for split, examples in SPLITS.by_name().items():
        of_split = rows[rows["split"] == split]
        assert of_split["example_id"].tolist() == examples.example_ids.tolist()
        assert of_split["label"].tolist() == examples.labels.tolist()
        assert of_split["group"].tolist() == [SPLITS.group_names[group] for group in examples.groups]
        assert of_split["label_name"].tolist() == [SPLITS.label_names[label] for label in examples.labels]
    assert rows.loc[rows["split"] == "train", "text"].tolist() == list(SPLITS.train.texts)
    assert rows.loc[rows["split"] != "train", "text"].isna().all()


def test_a_corpus_that_is_stored_is_not_written_again(tmp_path):
    store = Store(tmp_path)
    keep(store)
    before = written_at(store)
    assert keep(store)[1] == []
    assert written_at(store) == before


def test_texts_that_were_left_out_are_added_when_they_are_wanted(tmp_path):
    store = Store(tmp_path)
    without, said = keep(store, has_texts=False)
    assert without["text"].isna().all()
    before = written_at(store)
    assert keep(store, has_texts=False)[1] == said == []
    assert written_at(store) == before
    rows, said = keep(store)
    assert said == []
    assert rows["text"].notna().sum() == 12
    pd.testing.assert_frame_equal(rows.drop(columns="text"), without.drop(columns="text"))


def test_stored_texts_that_are_not_wanted_are_told_and_left(tmp_path):
    store = Store(tmp_path)
    with_texts, _ = keep(store)
    rows, (line,) = keep(store, has_texts=False)
    pd.testing.assert_frame_equal(rows, with_texts)
    path = line.partition(": delete ")[2].partition(" and ")[0]
    Path(path).unlink()
    rows, said = keep(store, has_texts=False)
    assert said == []
    assert len(rows) == 24
    assert rows["text"].isna().all()


def test_a_damaged_corpus_is_written_again_and_said(tmp_path):
    store = Store(tmp_path)
    before, _ = keep(store)
    path = Path(store.file_of("examples", KEY))
    path.write_bytes(path.read_bytes()[:-20])
    rows, (line,) = keep(store)
    assert f"{path} is damaged" in line
    pd.testing.assert_frame_equal(rows, before)


@pytest.mark.parametrize("has_texts", [True, False])
def test_an_experiment_begins_with_its_corpus_and_goes_on_whether_texts_are_stored_or_not(has_texts, tmp_path, capsys):
    planted = Planted(num_train=80, num_val=40, num_test=40)
    config = ExperimentConfig(planted, model="tiny", methods=("random",), seeds=(0,), num_removed=(5,))
    store = Store(tmp_path)
    for begun in (has_texts, not has_texts):
        prepared = prepare(dataclasses.replace(config, store_texts=begun), store, Progress())
        record_plan(prepared, Progress())
        (key,) = store.keys("examples")
        assert key == prepared.context.data_hash
    (experiment,) = store.read_experiments().values()
    assert experiment.configuration["data_hash"] == key
    assert experiment.provenance["device"].startswith(("cpu", "cuda"))
    assert store.read_all("examples")["text"].notna().sum() == 80
    assert ("does not delete" in " ".join(capsys.readouterr().err.split())) == has_texts
