"""The store's promises: whole files, fixed types, and tables that pandas reads."""

import contextlib
import errno
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import fs
from safetensors import safe_open

from d3m_ray.store import score_rows
from d3m_ray.store import store as store_module
from d3m_ray.store.errors import StoreError
from d3m_ray.store.experiments import PlannedTrial
from d3m_ray.store.files import Files
from d3m_ray.store.parquet import FILE_CHECKSUM
from d3m_ray.store.provenance import current_provenance, software
from d3m_ray.store.score_rows import scores_from_rows, scores_to_rows
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES
from d3m_ray.version import __version__

CREATED_AT = pd.Timestamp("2026-01-02 03:04:05", tz="UTC")
METHODS = {table: "trak" if spec.by_method else None for table, spec in TABLES.items()}
VALUES = {
    pa.string(): "ant",
    pa.int64(): 3,
    pa.float32(): 0.25,
    pa.float64(): 0.5,
    pa.timestamp("us", "UTC"): CREATED_AT,
    pa.dictionary(pa.int32(), pa.string()): "ant",
}
WEIGHTS = {"head.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(5)}


def make_frame(table: str, key: str, num_rows: int = 2) -> pd.DataFrame:
    """Rows that fit the table's schema."""
    columns = {field.name: [VALUES[field.type]] * num_rows for field in TABLES[table].schema}
    return pd.DataFrame(columns | {TABLES[table].key: [key] * num_rows})


def assert_same_weights(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    rows=st.lists(st.tuples(ANY_TEXT, ANY_TEXT, ANY_TEXT, st.integers(0, 2**62)), min_size=1, max_size=5),
    scores=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=6, max_size=6),
)
def test_any_text_and_number_comes_back_as_written(store: Store, rows: list[tuple], scores: list[float]) -> None:
    frame = make_frame("examples", "k1", len(rows))
    for place, column in enumerate(("example_id", "text", "group", "label")):
        frame[column] = [row[place] for row in rows]
    store.write("examples", "k1", frame, {})
    found = store.read("examples", "k1")
    for column in ("example_id", "text", "group", "label"):
        assert found[column].tolist() == frame[column].tolist()
    matrix = np.array(scores, dtype=np.float32).reshape(3, 2)
    names = [f"{number} {row[0]}" for number, row in enumerate(rows * 3)][:3]
    store.write_scores("scores", "k1", matrix, names, ["a", "b"], {}, "trak")
    np.testing.assert_array_equal(store.read_scores("scores", "k1", names, ["a", "b"], "trak"), matrix)


@pytest.mark.parametrize("part_rows", [1, 7, 100])
def test_scores_come_back_from_parts_of_any_size(store: Store, monkeypatch: pytest.MonkeyPatch, part_rows: int) -> None:
    """Of whole examples as they are written, and cut anywhere as earlier versions wrote them."""
    scores = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32)
    ids, names = [f"train/{number}" for number in range(11)], ["x", "y", "z"]
    monkeypatch.setattr(score_rows, "PART_ROWS", part_rows)
    store.write_scores("query_scores", "k1", scores, ids, names, {}, "trak")
    np.testing.assert_array_equal(store.read_scores("query_scores", "k1", ids, names, "trak"), scores)
    assert store.has_whole("query_scores", "k1", "trak", print)
    frame = store.read("query_scores", "k1", "trak")
    np.testing.assert_array_equal(frame["score"].to_numpy().reshape(11, 3), scores)
    rows = pa.concat_tables(scores_to_rows("scores", "k1", scores, ids, names)).unify_dictionaries().combine_chunks()
    cut = [rows.slice(start, 4) for start in range(0, len(rows), 4)]
    np.testing.assert_array_equal(scores_from_rows(cut, ids, names), scores)
    for others in (ids[::-1], [*ids[:-1], "train/0"], ids[:-1], [*ids, "train/11"]):
        with pytest.raises(ValueError, match=r"train order|rows"):
            scores_from_rows(cut, others, names)
    with pytest.raises(ValueError, match="train order"):
        scores_from_rows(cut, ids, names[::-1])


@pytest.mark.parametrize("table", TABLES)
def test_a_result_comes_back_as_written(store: Store, table: str) -> None:
    method, frame = METHODS[table], make_frame(table, "k1")
    assert not store.has(table, "k1", method)
    store.write(table, "k1", frame, {"beta": 1.0}, method)
    assert store.has(table, "k1", method)
    expected = frame if method is None else frame.assign(method=method)
    found = store.read(table, "k1", method)
    pd.testing.assert_frame_equal(found.astype(expected.dtypes), expected)
    pd.testing.assert_frame_equal(store.read_all(table), store.read(table, "k1", method))


@pytest.mark.parametrize("table", TABLES)
def test_an_empty_table_has_the_columns_and_types_of_a_full_one(store: Store, table: str) -> None:
    empty = store.read_all(table)
    assert empty.empty
    store.write(table, "k1", make_frame(table, "k1"), {}, METHODS[table])
    pd.testing.assert_series_equal(empty.dtypes.astype(str), store.read_all(table).dtypes.astype(str))
    assert store.read_all(table, columns=[TABLES[table].key]).columns.tolist() == [TABLES[table].key]


def test_the_columns_are_the_contracts() -> None:
    names = {table: set(spec.schema.names) for table, spec in TABLES.items()}
    assert names["fits"] == {"fit_key", "split", "example_id", "group", "label", "margin", "predicted", "probability"}
    trial = {"trial_key", "fit_key", "experiment", "dataset", "model", "objective", "num_removed", "seed"}
    cost = {"train_seconds", "num_train", "num_steps", "created_at"}
    assert (
        names["trials"]
        == trial
        | {"split", "group", "num_examples", "accuracy", "loss", "fpr", "fnr", "auc", "macro_f1"}
        | {"margin", "soft_accuracy"}
        | cost
    )
    assert names["examples"] == {"data_hash", "split", "example_id", "group", "label", "label_name", "text"}
    assert names["alignments"] == {"alignment_key", "example_id", "group", "label", "alignment"}
    assert names["scores"] == {"scores_key", "example_id", "query_set", "score"}
    assert names["query_scores"] == {"scores_key", "example_id", "query_id", "score"}
    interval = {"lds", "lds_low", "lds_high", "num_subsets", "scoring_seconds"}
    subsets = {"keep_share", "subset_seeds", "fits_per_subset"}
    ceiling = {f"{name}{bound}" for name in ("ceiling", "fit_correlation") for bound in ("", "_low", "_high")}
    assert names["lds"] == {"lds_key", "experiment", "kind", "target"} | interval | subsets | ceiling
    assert names["removals"] == {"trial_key", "example_id"}


def test_files_lie_where_the_contract_says(store: Store, tmp_path: Path) -> None:
    for table, method in METHODS.items():
        store.write(table, "k1", make_frame(table, "k1"), {}, method)
    store.write_checkpoint("k1", WEIGHTS)
    store.write_experiment("ants-1a2b", {"dataset": "ants", "model": "tiny"}, [])
    files = {str(path.relative_to(tmp_path / "store")) for path in tmp_path.rglob("*") if path.is_file()}
    tables = ("trials", "alignments", "scores", "query_scores", "lds", "removals", "failures")
    by_method = {f"{table}/method=trak/k1.parquet" for table in tables}
    without = {"fits/k1.parquet", "examples/k1.parquet", "checkpoints/k1.safetensors", "experiments/ants-1a2b.json"}
    assert files == by_method | without | {"format.json"}


def test_pandas_reads_a_table_and_takes_no_notice_of_unfinished_files(store: Store, tmp_path: Path) -> None:
    store.write("trials", "k1", make_frame("trials", "k1"), {}, "trak")
    store.write("trials", "k2", make_frame("trials", "k2").assign(fpr=np.nan), {}, "random")
    for name in (".k3.parquet.0f3a", ".k4.parquet", "_k5.parquet"):
        (tmp_path / "store" / "trials" / "method=trak" / name).write_bytes(b"half a file")
    frame = pd.read_parquet(f"{store}/trials")
    assert dict(zip(frame["trial_key"], frame["method"].astype(str), strict=True)) == {"k1": "trak", "k2": "random"}
    assert frame["fpr"].isna().tolist() == [True, True, False, False]
    assert store.keys("trials") == {"k1", "k2"}
    assert store.keys("trials", "trak") == {"k1"}
    assert store.keys("trials", "ekfac") == set()
    assert set(store.read_all("trials")["trial_key"]) == {"k1", "k2"}


def test_a_killed_writer_leaves_nothing_that_looks_like_a_result(tmp_path: Path) -> None:
    script = (
        "import os, sys; import numpy as np; from d3m_ray.store.store import Store\n"
        "os.fsync = lambda file: os._exit(9)\n"  # dies when the data is written and the file not yet renamed
        "Store(sys.argv[1]).write_checkpoint('k1', {'head': np.zeros(250_000, dtype=np.float32)})"
    )
    outcome = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert outcome.returncode == 9
    assert list((tmp_path / "checkpoints").iterdir()) == []
    (unfinished,) = (tmp_path / ".unfinished").iterdir()
    assert unfinished.name.startswith(".")
    store = Store(tmp_path)
    assert not store.has_checkpoint("k1")
    store.write_checkpoint("k1", WEIGHTS)
    assert_same_weights(store.read_checkpoint("k1"), WEIGHTS)


def test_a_write_that_fails_leaves_no_file_and_the_earlier_result(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_checkpoint("k1", WEIGHTS)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StoreError, match=r"the store .* cannot be written \(No space left on device\): free some space"
    ):
        store.write_checkpoint("k1", {"other": np.zeros(3)})
    assert [path.name for path in (tmp_path / "store" / "checkpoints").iterdir()] == ["k1.safetensors"]
    assert_same_weights(store.read_checkpoint("k1"), WEIGHTS)


def test_metadata_says_what_produced_a_result(store: Store) -> None:
    store.write("fits", "k1", make_frame("fits", "k1"), {"seed": 3, "training": {"num_epochs": 2}})
    metadata = store.read_metadata("fits", "k1")
    assert metadata["configuration"] == {"seed": 3, "training": {"num_epochs": 2}}
    assert metadata["package_version"] == __version__
    assert metadata["commit"]
    assert {"torch", "transformers", "tokenizers", "ray", "numpy", "pyarrow"} <= set(metadata["library_versions"])
    assert metadata["library_versions"]["numpy"] == np.__version__
    raw = pq.read_schema(f"{store}/fits/k1.parquet").metadata[b"d3m_ray"]
    assert json.loads(raw) == metadata


def test_a_checkpoint_says_what_produced_it(store: Store) -> None:
    store.write_checkpoint("k1", WEIGHTS)
    with safe_open(f"{store}/checkpoints/k1.safetensors", "numpy") as file:
        metadata = file.metadata()
    assert (metadata["fit_key"], metadata["package_version"]) == ("k1", __version__)
    assert metadata["commit"] == software()["commit"]


def test_filters_and_columns_are_read_alone(store: Store) -> None:
    for method in ("trak", "random"):
        frame = make_frame("trials", f"{method}-1").assign(group=["all", "worst"])
        store.write("trials", f"{method}-1", frame, {}, method)
    filters = [("method", "==", "random"), ("group", "==", "worst")]
    frame = store.read_all("trials", columns=["method", "group"], filters=filters)
    assert frame.to_dict("records") == [{"method": "random", "group": "worst"}]


def test_a_second_write_of_a_result_is_harmless(store: Store) -> None:
    for _ in range(2):
        store.write("fits", "k1", make_frame("fits", "k1"), {})
    assert len(store.read_all("fits")) == 2


def test_a_trial_that_removes_nothing_has_an_empty_file(store: Store) -> None:
    store.write("removals", "k1", make_frame("removals", "k1", num_rows=0), {}, "trak")
    assert store.has("removals", "k1", "trak")
    assert store.read_all("removals").empty


def test_a_failure_is_deleted_once_and_its_number_may_be_unknown(store: Store) -> None:
    frame = make_frame("failures", "k1", num_rows=1).assign(num_removed=pd.array([None], dtype="Int64"))
    store.write("failures", "k1", frame, {}, "trak")
    assert store.read_all("failures")["num_removed"].isna().all()
    for _ in range(2):
        store.delete_failure("k1", "trak")
        assert store.keys("failures") == set()


def test_a_failure_deleted_while_it_is_read_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("k1", "k2"):
        store.write("failures", key, make_frame("failures", key, num_rows=1), {}, "trak")
    listing = store_module.results_among

    def list_then_delete(paths: Iterable[str], table: str) -> list[str]:
        found = listing(paths, table)
        store.delete_failure("k1", "trak")
        return found

    monkeypatch.setattr(store_module, "results_among", list_then_delete)
    assert store.read_all("failures")["trial_key"].tolist() == ["k2"]


def test_where_files_go_at_every_reading_a_line_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("failures", "k1", make_frame("failures", "k1", num_rows=1), {}, "trak")
    gone = {"failures/method=trak/gone.parquet": "1 bytes, 1"}
    monkeypatch.setattr(store, "_versions", lambda table, keys: gone)
    with pytest.raises(StoreError, match=f"files of {store}/failures go faster than they can be read: ask again"):
        store.read_all("failures")


def test_a_bit_that_turned_anywhere_is_found_and_no_row_is_lost_to_it(store: Store) -> None:
    """In the footer too, where columns are named: without checksum of its own it would be read as another."""
    for key in ("k1", "k2"):
        store.write("trials", key, make_frame("trials", key, num_rows=3), {}, "trak")
    asked = {"columns": ["seed", "fnr"], "filters": [("experiment", "!=", "of nobody")]}
    path = Path(store.file_of("trials", "k1", "trak"))
    data, expected = path.read_bytes(), store.read_all("trials", **asked)
    own_name = range(data.rindex(FILE_CHECKSUM), data.rindex(FILE_CHECKSUM) + len(FILE_CHECKSUM))
    of_a_column = data.index(b"fnr", len(data) - int.from_bytes(data[-8:-4], "little") - 8)
    for place in {of_a_column, *range(4, len(data), 97)} - {*own_name}:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        (fault,) = store.check().damaged or store.check().foreign
        assert fault.path == "trials/method=trak/k1.parquet"
        with contextlib.suppress(StoreError):
            pd.testing.assert_frame_equal(store.read_all("trials", **asked), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": None}, "margin"),
        ({"margin": np.nan}, "margin"),
        ({"label": 0.5}, "label"),
        ({"label": "one"}, "label"),
        ({"fit_key": "k2"}, r"every row of fits/k1\.parquet has fit_key 'k1'"),
        ({"surplus": 1}, r"unknown \['surplus'\]"),
        ({"score_ant": 1.0}, r"unknown \['score_ant'\]"),
    ],
)
def test_a_frame_that_breaks_the_schema_is_refused(store: Store, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        store.write("fits", "k1", make_frame("fits", "k1").assign(**change), {})
    assert not store.has("fits", "k1")


def test_a_missing_column_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match=r"missing \['margin'\]"):
        store.write("fits", "k1", make_frame("fits", "k1").drop(columns="margin"), {})


def test_names_that_would_leave_the_folder_are_refused(store: Store) -> None:
    for name in ("../k1", "", ".k1", "_k1", "a/b", "a=b"):
        with pytest.raises(ValueError, match="a name is letters"):
            store.has("fits", name)
        with pytest.raises(ValueError, match="a name is letters"):
            store.keys("trials", name)


def test_tables_and_methods_go_together(store: Store) -> None:
    with pytest.raises(ValueError, match="fits has no methods"):
        store.has("fits", "k1", "trak")
    with pytest.raises(ValueError, match="trials has a method"):
        store.has("trials", "k1")
    with pytest.raises(ValueError, match=r"one of fits, trials.*received 'trial'"):
        store.keys("trial")


def test_a_truncated_file_is_named_with_its_fix(store: Store) -> None:
    for key in ("k1", "k2"):
        store.write("fits", key, make_frame("fits", key, num_rows=100), {})
    path = Path(f"{store}/fits/k2.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    for read in (lambda: store.read("fits", "k2"), lambda: store.read_all("fits")):
        with pytest.raises(StoreError, match=rf"fits/k2\.parquet is damaged .* d3m-ray check {store} --repair "):
            read()
    assert len(store.read("fits", "k1")) == 100


def test_a_damaged_experiment_is_named(store: Store) -> None:
    store.write_experiment("ants", {"dataset": "ants", "model": "tiny"}, [])
    known = '{"configuration": {"dataset": "ants", "model": "tiny"}, "plan": '
    for content in (
        "{", "[]",
        '{"plan": []}', '{"configuration": {}, "plan": []}', '{"configuration": {"model": "tiny"}, "plan": []}',
        f"{known}7}}", f'{known}[["trak"]]}}', f'{known}["tr"]}}', f'{known}[["trak", "many", 0]]}}',
        f'{known}[], "keys": []}}', f'{known}[], "caveats": 3}}',
        f'{known}[], "keys": {{"scores": {{"trak": "../fits/k1"}}}}}}',
        f'{known}[], "keys": {{"fits": {{"seed 0": ""}}}}}}',
        '{"configuration": {"dataset": "ants", "model": "tiny", "data_hash": "a/b"}, "plan": []}',
        '{"configuration": {"dataset": "ants", "model": "tiny", "plugins": ["cut"]}, "plan": []}',
        '{"configuration": {"dataset": "ants", "model": "tiny", "plugins_in_use": {"cut": 1}}, "plan": []}',
        f'{known}[], "provenance": "here"}}', f'{known}[], "provenance": {{"host": ["a"]}}}}',
        f'{known}[], "provenance": {{"num_cores": true}}}}', f'{known}[], "provenance": {{"versions": {{"ray": 2}}}}}}',
    ):  # fmt: skip
        Path(f"{store}/experiments/ants.json").write_text(content)
        with pytest.raises(StoreError, match=rf"experiments/ants\.json is damaged \(.*\); d3m-ray check {store} "):
            store.read_experiments()
    Path(f"{store}/experiments/ants.json").write_text(f"{known}[]}}")
    earlier = store.read_experiments()["ants"]
    assert (earlier.created_at, earlier.provenance) == (None, {}), "a record of an earlier version"
    Path(f"{store}/experiments/no name.json").write_text("not ours")
    assert list(store.read_experiments()) == ["ants"]


def test_an_absent_result_is_a_clear_error(store: Store) -> None:
    with pytest.raises(StoreError, match=r"holds no fits/k1\.parquet"):
        store.read("fits", "k1")
    with pytest.raises(StoreError, match=r"holds no checkpoints/k1\.safetensors"):
        store.read_checkpoint("k1")


def test_an_experiment_is_extended_not_replaced(store: Store) -> None:
    assert store.read_experiments() == {}
    configuration = {"dataset": "ants", "model": "tiny", "training": {"num_epochs": 1}}
    store.write_experiment("ants-1", configuration, [("trak", 0, 0), ("trak_heuristic", None, 0)])
    provenance = current_provenance("cpu")
    store.write_experiment("ants-1", configuration, [("trak", 50, 0), ("trak", 0, 0)], provenance=provenance)
    store.write_experiment("ants-0", configuration, [])
    experiments = store.read_experiments()
    assert list(experiments) == ["ants-0", "ants-1"]
    assert experiments["ants-1"].configuration == configuration
    assert experiments["ants-1"].provenance == provenance
    store.write_caveats("ants-1", ["few seeds"])
    assert store.read_experiments()["ants-1"].provenance == provenance
    plan = (("trak", 0, 0), ("trak_heuristic", None, 0), ("trak", 50, 0))
    assert experiments["ants-1"].plan == tuple(PlannedTrial(*trial) for trial in plan)
    with pytest.raises(ValueError, match=r"missing \['model'\]"):
        store.write_experiment("ants-2", {"dataset": "ants"}, [])


def test_a_pickled_store_is_small_and_the_same_store(store: Store) -> None:
    store.write("fits", "k1", make_frame("fits", "k1"), {})
    pickled = pickle.dumps(store)
    assert len(pickled) < 1000
    assert pickle.loads(pickled).keys("fits") == {"k1"}


def test_a_relative_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("results")
    monkeypatch.chdir("/")
    store.write_checkpoint("k1", WEIGHTS)
    assert str(store) == str(tmp_path / "results")
    assert (tmp_path / "results" / "checkpoints" / "k1.safetensors").exists()


def test_a_file_uri_is_a_folder(tmp_path: Path) -> None:
    store = Store(f"file://{tmp_path}/results/")
    store.write_checkpoint("k1", WEIGHTS)
    assert_same_weights(Store(tmp_path / "results").read_checkpoint("k1"), WEIGHTS)


def test_a_root_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StoreError, match="is a file; name another place"):
        Store(tmp_path / "file")
    with pytest.raises(StoreError, match=r"URI of file, s3, gs; received 'ftp://host/store'"):
        Store("ftp://host/store")
    with pytest.raises(StoreError, match=r"received ''"):
        Store("")
    with pytest.raises(StoreError, match="cannot be reached: Unexpected query parameter in S3 URI"):
        Store("s3://bucket/store?no_such_option=1")


@pytest.fixture
def s3_root(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of a store in a bucket of an S3 server in this process."""
    server_module = pytest.importorskip("moto.server", reason="moto[server], of the extra `dev`, is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = f"endpoint_override={host}%3A{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        filesystem, _ = fs.FileSystem.from_uri(f"s3://bucket?{options}")
        filesystem.create_dir("bucket")
        yield f"s3://bucket/some/store?{options}"
    finally:
        server.stop()


def test_a_store_in_a_bucket_is_a_store(s3_root: str) -> None:
    store = pickle.loads(pickle.dumps(Store(s3_root)))
    assert store.keys("trials") == set()
    assert store.read_all("alignments").empty
    store.write("trials", "k1", make_frame("trials", "k1"), {"seed": 1}, "trak")
    store.write("trials", "k1", make_frame("trials", "k1"), {"seed": 2}, "trak")
    store.write("trials", "k2", make_frame("trials", "k2"), {}, "random")
    assert store.keys("trials") == {"k1", "k2"}
    assert store.keys("trials", "trak") == {"k1"}
    assert store.has("trials", "k1", "trak")
    assert not store.has("trials", "k1", "random")
    assert store.read_metadata("trials", "k1", "trak")["configuration"] == {"seed": 2}
    assert store.read_all("trials")["method"].tolist() == ["random", "random", "trak", "trak"]

    filesystem, path = fs.FileSystem.from_uri(s3_root)
    frame = pd.read_parquet(f"{path}/trials", filesystem=filesystem)
    assert set(zip(frame["trial_key"], frame["method"], strict=True)) == {("k1", "trak"), ("k2", "random")}

    store.check_writable()
    assert store.keys("trials") == {"k1", "k2"}
    large = {"head": np.zeros(1_500_000, dtype=np.float32)}  # more than one part of an upload
    store.write_checkpoint("k1", large)
    assert_same_weights(store.read_checkpoint("k1"), large)
    store.write_experiment("ants", {"dataset": "ants", "model": "tiny"}, [("trak", 0, 0)])
    assert store.read_experiments()["ants"].plan == (("trak", 0, 0),)
    store.write("failures", "k1", make_frame("failures", "k1"), {}, "trak")
    store.delete_failure("k1", "trak")
    assert store.keys("failures") == set()
    with pytest.raises(StoreError, match=r"holds no fits/k9\.parquet"):
        store.read("fits", "k9")


def test_what_was_found_whole_is_read_again_only_where_it_has_changed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [f"{number:020d}" for number in range(3)]
    for key in keys:
        store.write("removals", key, pd.DataFrame({"trial_key": [key], "example_id": ["train/0"]}), {}, "trak")
    methods, said, read = dict.fromkeys(keys, "trak"), [], []
    get = Files.get
    monkeypatch.setattr(Files, "get", lambda files, path: (read.append(path), get(files, path))[1])
    assert store.has_whole("removals", keys[0], "trak", said.append)
    assert store.whole_keys("removals", methods, said.append) == set(keys)
    assert store.has_whole("removals", keys[1], "trak", said.append)
    assert len(read) == len(set(read)) == 3
    path = Path(store.file_of("removals", keys[1], "trak"))
    path.write_bytes(path.read_bytes()[:-9])
    assert store.whole_keys("removals", methods, said.append) == {keys[0], keys[2]}
    assert not store.has_whole("removals", keys[1], "trak", said.append)
    assert (len(read), len(said), path.exists()) == (4, 1, False)
