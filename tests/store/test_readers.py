"""A user's own reader, of pandas, duckdb or polars, sees every row of every table, whatever lies in it together."""

import dataclasses
import datetime
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_store import STUDY

from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.planted import Planted
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import LocalEngine

duckdb = pytest.importorskip("duckdb", reason="duckdb, of the extra `dev`, is not installed")
polars = pytest.importorskip("polars", reason="polars, of the extra `dev`, is not installed")


def by_duckdb(folder: str) -> pd.DataFrame:
    return duckdb.sql(f"SELECT * FROM read_parquet('{folder}/**/*.parquet', hive_partitioning=true)").df()


def by_polars(folder: str) -> pd.DataFrame:
    return pd.DataFrame(polars.scan_parquet(folder, hive_partitioning=True).collect().to_dict(as_series=False))


READERS: dict[str, Callable[[str], pd.DataFrame]] = {
    "pandas": pd.read_parquet,
    "duckdb": by_duckdb,
    "polars": by_polars,
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Callable[[str], pd.DataFrame]:
    return READERS[request.param]


def comparable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in one order and in plain types, for readers differ in both: texts, floats, and times in UTC."""
    plain = {}
    for name in sorted(frame.columns):
        values = frame[name].tolist()
        if any(isinstance(value, datetime.datetime) for value in values):
            plain[name] = pd.to_datetime(pd.Series(values), utc=True).astype("int64").tolist()
        else:
            plain[name] = [np.nan if value is None or value is pd.NA else value for value in values]
    rows = pd.DataFrame(plain)
    return rows.sort_values(list(rows.columns), ignore_index=True)


@pytest.fixture(scope="module")
def csv_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of its own groups, elm and fir."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, number in (("train", 40), ("val", 16), ("test", 16)):
        rows = [f"{split} word{i},{i // 2 % 2},{('elm', 'fir')[i % 2]}" for i in range(number)]
        (folder / f"{split}.csv").write_text("\n".join(["text,label,group", *rows]))
    return folder


@pytest.fixture(scope="module")
def two_corpora(tmp_path_factory: pytest.TempPathFactory, csv_folder: Path) -> Store:
    """A store of two corpora with other groups, a method and its Auto-D3M arm, failures with a number and without."""
    store = Store(tmp_path_factory.mktemp("two_corpora"))
    small = ExperimentConfig(
        corpus=Planted(num_train=40, num_val=16, num_test=16),
        model="tiny",
        methods=("trak", "trak_auto"),
        num_removed=(0, 5),
        seeds=(0,),
        training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
        trak=TrakConfig(projection_dim=16),
    )
    for config in (small, dataclasses.replace(small, corpus=Toxigen(), data=csv_folder)):
        with Progress() as progress:
            assert run_experiment(prepare(config, store, progress), LocalEngine(), progress).failed == []
    failure = {"experiment": "mine", "seed": 0, "error": "e", "traceback": "t", "created_at": pd.Timestamp.now("UTC")}
    for key, number in (("k1", 5), ("k2", None)):
        frame = pd.DataFrame([{"trial_key": key, "num_removed": number, **failure}]).astype({"num_removed": "Int64"})
        store.write("failures", key, frame, {}, f"trak{number or ''}")
    lds = {
        **STUDY,
        "experiment": "mine",
        "kind": "query",
        "target": "mean",
        "lds": 0.5,
        "lds_low": None,
        "lds_high": None,
    }
    store.write(
        "lds", "k1", pd.DataFrame([{"lds_key": "k1", **lds, "num_subsets": 5, "scoring_seconds": 1.0}]), {}, "trak"
    )
    return store


def test_a_killed_writer_disturbs_no_reader(
    two_corpora: Store, reader: Callable[[str], pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", must_not_finish)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        two_corpora.write_scores("scores", "k9", np.ones((1, 1)), ["a"], ["elm"], {}, "trak")
    assert list(Path(f"{two_corpora}/.unfinished").iterdir())
    assert "k9" not in set(reader(f"{two_corpora}/scores")["scores_key"])


def must_not_finish(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_every_table_is_seen(
    table: str, two_corpora: Store, reader: Callable[[str], pd.DataFrame]
) -> None:
    expected = two_corpora.read_all(table)
    assert len(expected) > 0
    found = reader(f"{two_corpora}/{table}")
    pd.testing.assert_frame_equal(comparable(found), comparable(expected), check_dtype=False)


def test_every_score_of_every_set_of_groups_is_seen(two_corpora: Store, reader: Callable[[str], pd.DataFrame]) -> None:
    scores = reader(f"{two_corpora}/scores")
    sets = scores.groupby(["method", "scores_key"], observed=True)["query_set"].agg(lambda names: frozenset(names))
    planted, pseudo = {"amber", "birch", "cedar", "dune"}, {f"pseudo_{number}" for number in range(4)}
    assert sets["trak"].tolist() in ([planted, {"elm", "fir"}], [{"elm", "fir"}, planted])
    assert all(len(names) >= 2 and names <= pseudo for names in sets["trak_auto"])
    assert len(sets) == 4
    assert np.isfinite(scores["score"]).all()
    assert len(scores) == 40 * sum(len(names) for names in sets)


def test_a_record_names_the_rows_of_its_own_experiment(two_corpora: Store) -> None:
    scores, alignments = pd.read_parquet(f"{two_corpora}/scores"), pd.read_parquet(f"{two_corpora}/alignments")
    for experiment in two_corpora.read_experiments().values():
        num_groups = {"planted": 4, "toxigen": 2}[experiment.configuration["dataset"]]
        assert len(scores[scores["scores_key"] == experiment.keys["scores"]["trak"]]) == 40 * num_groups
        assert len(alignments[alignments["alignment_key"] == experiment.keys["alignments"]["trak_auto"]]) == 40
        assert two_corpora.has("fits", experiment.keys["fits"]["base model, seed 0"])
        assert two_corpora.has("query_scores", experiment.keys["query_scores"]["trak"], "trak")
