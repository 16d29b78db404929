"""`d3m-ray compact`: a table read from its copy is the table read one by one, whatever came, changed or went since."""

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import d3m_ray as d3m
from d3m_ray.__main__ import main
from d3m_ray.store import compacted, results
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES

METHODS = ("trak", "trak-auto", "trak_auto", "random")  # "-" is before "/", in the order of paths, and "_" behind


def trial(key: str, method: str, number: int) -> pd.DataFrame:
    """Three rows, some without a value."""
    frame = pd.DataFrame(
        {name: np.full(3, float(number)) for name in TABLES["trials"].schema.names}
        | dict.fromkeys(("fit_key", "dataset", "model", "objective", "split"), "x")
        | {"trial_key": key, "experiment": f"e{number % 2}", "group": ["a", "b", "all"], "fpr": [None, 0.5, np.nan]}
    )
    counts = ["num_removed", "seed", "num_examples", "num_train", "num_steps"]
    return frame.astype(dict.fromkeys(counts, "int64")).assign(created_at=pd.Timestamp(number, unit="s", tz="UTC"))


def key_of(number: int) -> str:
    """Keys whose order is not that of the numbers."""
    return f"k{number * 7919 % 1000:03d}"


def write(store: Store, number: int) -> None:
    """A trial, what it removed, and its fit."""
    key, method = key_of(number), METHODS[number % len(METHODS)]
    store.write("trials", key, trial(key, method, number), {"number": number}, method)
    removed = pd.DataFrame({"trial_key": key, "example_id": [f"train/{i}" for i in range(number % 3)]})
    store.write("removals", key, removed.astype("str"), {}, method)
    rows = {"fit_key": key, "split": ["val", "test"], "example_id": ["val/0", "test/0"], "group": "a", "label": [0, 1]}
    answers = {"margin": np.float32([number, 1]), "predicted": [0, 1], "probability": np.float32([np.nan, 1])}
    store.write("fits", key, pd.DataFrame(rows | answers), {})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty trials."""
    folder = tmp_path_factory.mktemp("compacted") / "store"
    for number in range(40):
        write(Store(folder), number)
    return folder


@pytest.fixture
def store(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy that a test may change, compacted in row groups of a few trials."""
    monkeypatch.setattr(compacted, "NUM_ROWS_TOGETHER", 10)
    monkeypatch.setattr(compacted, "NUM_FILES_TOGETHER", 7)
    return Store(shutil.copytree(written, tmp_path / "store"))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the results that were scanned one by one, in order."""
    paths: list[str] = []
    scan = results.scan_results

    def noting(files: Any, table: str, of: list[str], *rest: Any) -> Any:
        paths.extend(of)
        return scan(files, table, of, *rest)

    monkeypatch.setattr(compacted, "scan_results", noting)
    return paths


READS: list[dict[str, Any]] = [
    {},
    {"columns": ["example_id"]},
    {"filters": [("experiment", "==", "e1"), ("group", "in", ["a", "all"])], "columns": ["seed", "fpr"]},
    {"filters": [("method", "==", "trak")]},
    {"filters": [("method", "==", "of no arm")]},
    {
        "keys": {
            "k000": "trak",
            "k919": "trak-auto",
            "k838": "trak_auto",
            "k757": "random",
            "k676": "trak",
            "gone": "trak",
        }
    },
]


def read_each(folder: str) -> list[pd.DataFrame]:
    """The tables by several ways of asking."""
    store = Store(folder)
    frames = [store.read_all(table) for table in ("trials", "removals", "fits", "failures")]
    for asked in READS:
        table = "removals" if asked.get("columns") == ["example_id"] else "trials"
        frames.append(store.read_all(table, **asked))
    keys = dict.fromkeys(["k000", "k919", "k838", "k757", "k676"])
    frames.append(store.read_all("fits", ["fit_key", "predicted"], [("split", "==", "test")], keys=keys))
    return frames


def assert_as_without_copy(store: Store) -> None:
    found = read_each(str(store))
    copies = Path(f"{store}/compacted").rename(Path(f"{store}/aside"))
    expected = read_each(str(store))
    copies.rename(Path(f"{store}/compacted"))
    assert len(expected[0]) > 0
    for one, other in zip(found, expected, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_a_table_is_read_from_its_copy_as_from_its_files(store: Store, opened: list[str]) -> None:
    done = {of.table: of for of in d3m.compact_store(store)}
    assert {table: of.num_files for table, of in done.items()} == {"trials": 40, "fits": 40, "removals": 40}
    assert done["trials"].num_bytes == Path(f"{store}/compacted/trials.parquet").stat().st_size
    read_each(str(store))
    assert not opened
    assert_as_without_copy(store)


def test_a_copy_has_the_rows_of_its_table_for_any_reader(store: Store) -> None:
    store.compact(print)
    copy = pd.read_parquet(f"{store}/compacted/trials.parquet")
    paths = "trials/method=" + copy["method"] + "/" + copy["trial_key"] + ".parquet"
    assert (copy["path"] == paths).all()
    assert copy["path"].is_monotonic_increasing
    pd.testing.assert_frame_equal(copy.drop(columns="path"), store.read_all("trials"), check_dtype=False)


def test_few_row_groups_are_read_for_few_results(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.compact(print)
    index, _ = compacted.Compacted(store._files)._held("fits", store._files.versions("fits"))
    file = pq.ParquetFile(f"{store}/compacted/fits.parquet")
    assert 4 <= file.num_row_groups == 1 + max(of.row_group for of in index.values())
    for path, of in index.items():
        assert path in file.read_row_group(of.row_group)["path"].to_pylist()


def test_what_came_changed_or_went_since_is_read_as_it_is(store: Store, opened: list[str]) -> None:
    store.compact(print)
    for number in (40, 41, 42):
        write(store, number)
    frame = store.read("trials", "k000", "trak").drop(columns="method")
    store.write("trials", "k000", frame.assign(accuracy=0.125), {}, "trak")
    store.delete_result("trials", "k919", "trak-auto")
    found = Store(str(store)).read_all("trials")
    since = [f"trials/method={METHODS[number % 4]}/{key_of(number)}.parquet" for number in (0, 40, 41, 42)]
    assert opened == sorted(since)
    assert (found.loc[found["trial_key"] == "k000", "accuracy"] == 0.125).all()
    assert "k919" not in set(found["trial_key"])
    assert found["trial_key"].nunique() == 42
    assert_as_without_copy(store)
    write(store, 1)
    store.compact(print)
    opened.clear()
    read_each(str(store))
    assert not opened


def test_a_store_open_meanwhile_reads_the_new_copy(store: Store, opened: list[str]) -> None:
    reader = Store(str(store)).reader()
    store.compact(print)
    assert reader.read_all("trials")["trial_key"].nunique() == 40
    write(store, 40)
    store.compact(print)
    assert reader.read_all("trials")["trial_key"].nunique() == 41
    assert not opened


def test_a_store_copied_without_its_times_is_read_one_by_one(store: Store, tmp_path: Path, opened: list[str]) -> None:
    store.compact(print)
    copied = Store(shutil.copytree(str(store), tmp_path / "copied", copy_function=shutil.copyfile))
    pd.testing.assert_frame_equal(copied.read_all("trials"), store.read_all("trials"))
    assert len(opened) == 40


def test_a_copy_that_is_replaced_while_it_is_read_loses_no_row(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.compact(print)
    for number in range(40, 80):
        write(store, number)
    scan = compacted._scan_copy

    def meanwhile(*given: Any) -> Any:
        monkeypatch.setattr(compacted, "_scan_copy", scan)
        Store(str(store)).compact(print)
        return scan(*given)

    monkeypatch.setattr(compacted, "_scan_copy", meanwhile)
    assert Store(str(store)).read_all("trials")["trial_key"].nunique() == 80


def test_what_somebody_put_beside_the_results_is_read_as_without_a_copy(store: Store) -> None:
    for folder in ("backup", "method=a%20b"):
        (Path(f"{store}/trials") / folder).mkdir()
        shutil.copy2(store.file_of("trials", "k000", "trak"), f"{store}/trials/{folder}/k000.parquet")
    expected = store.read_all("trials")
    (of_trials, *_) = store.compact(print)
    assert of_trials.num_files == 40
    pd.testing.assert_frame_equal(Store(str(store)).read_all("trials"), expected)


@pytest.mark.parametrize(
    "asked", [{"columns": ["path"]}, {"filters": [("path", "==", "x")]}, {"columns": ["seed", "seed"]}]
)
def test_the_column_of_the_copy_alone_is_no_column_of_the_table(store: Store, asked: dict[str, Any]) -> None:
    def answer() -> str:
        try:
            return str(Store(str(store)).read_all("trials", **asked))
        except pa.ArrowInvalid as error:
            return str(error)

    before = answer()
    store.compact(print)
    assert answer() == before


def test_a_pickled_store_leaves_the_index_behind(store: Store) -> None:
    store.compact(print)
    size = len(pickle.dumps(store))
    expected = store.read_all("trials")
    assert len(pickle.dumps(store)) == size
    pd.testing.assert_frame_equal(pickle.loads(pickle.dumps(store)).read_all("trials"), expected)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def turn_a_bit(path: Path, place: int = 100) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def turn_a_bit_of_the_index(path: Path) -> None:
    turn_a_bit(path, path.read_bytes().rindex(b"trials/method=trak/k"))


def turn_a_bit_of_the_footer(path: Path) -> None:
    """In the names of its columns."""
    turn_a_bit(path, path.read_bytes().rindex(b"soft_accuracy"))


def of_another_version(path: Path) -> None:
    copy = pq.read_table(path).drop_columns(["loss"])
    pq.write_table(copy, path)


@pytest.mark.parametrize(
    "spoil", [cut, turn_a_bit, turn_a_bit_of_the_index, turn_a_bit_of_the_footer, of_another_version, Path.unlink]
)
def test_a_spoilt_copy_is_passed_over(store: Store, spoil: Callable[[Path], None]) -> None:
    expected = store.read_all("trials")
    store.compact(print)
    spoil(Path(f"{store}/compacted/trials.parquet"))
    pd.testing.assert_frame_equal(Store(str(store)).read_all("trials"), expected)


def test_check_finds_a_spoilt_copy_and_repair_deletes_it(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.compact(print)
    copy = Path(f"{store}/compacted/fits.parquet")
    whole = store.check()
    assert not whole.damaged
    assert whole.num_files == 123
    turn_a_bit(copy)
    (fault,) = store.check(repair=True).damaged
    assert fault.path == "compacted/fits.parquet"
    assert "d3m-ray compact writes it again" in fault.recomputed
    assert not copy.exists()


def test_damaged_results_are_told_and_left_out_of_the_copy(
    store: Store, capsys: pytest.CaptureFixture[str], opened: list[str]
) -> None:
    damaged = Path(store.file_of("trials", "k000", "trak"))
    cut(damaged)
    main(["compact", str(store)])
    shown = capsys.readouterr()
    assert "k000.parquet is damaged" in shown.err
    assert "left out of the copy" in shown.err
    assert "39 files of trials in one" in shown.out
    assert "1 file left out" in shown.out
    told: list[str] = []
    assert store.read_all("trials", say=told.append)["trial_key"].nunique() == 39
    assert [str(damaged) in line for line in told] == [True]
    assert [path for path in opened if "k000" not in path] == []
    with pytest.raises(StoreError, match="is damaged"):
        store.read_all("trials")


def test_what_was_damaged_since_is_read_from_the_copy_where_its_time_stands(store: Store) -> None:
    expected = store.read_all("trials")
    store.compact(print)
    path = Path(store.file_of("trials", "k000", "trak"))
    before = path.stat()
    turn_a_bit(path, 200)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    pd.testing.assert_frame_equal(Store(str(store)).read_all("trials"), expected)
    assert [fault.path for fault in store.check().damaged] == ["trials/method=trak/k000.parquet"]


def test_a_damaged_result_is_left_out_where_the_copy_is_damaged_too(store: Store) -> None:
    store.compact(print)
    path = Path(store.file_of("trials", "k000", "trak"))
    before = path.stat()
    turn_a_bit(path, 200)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    cut_first = Path(store.file_of("trials", "k919", "trak-auto"))
    cut(cut_first)
    told: list[str] = []
    assert Store(str(store)).read_all("trials", say=told.append)["trial_key"].nunique() == 39
    assert len(told) == 1
    turn_a_bit(Path(f"{store}/compacted/trials.parquet"))
    told.clear()
    assert Store(str(store)).read_all("trials", say=told.append)["trial_key"].nunique() == 38
    assert len(told) == 2


@pytest.mark.parametrize("there", [False, True])
def test_a_store_without_results_is_refused(tmp_path: Path, there: bool, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "store"
    if there:
        folder.mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["compact", str(folder)])
    assert ended.value.code == 2
    assert ("holds no experiment" if there else "is not there") in capsys.readouterr().err
    assert not (folder / "compacted").exists()
