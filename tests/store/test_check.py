"""`d3m-ray check`: what is damaged or missing is named, repaired and recomputed, and nothing else is touched."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

import d3m_ray as d3m
from d3m_ray.__main__ import main
from d3m_ray.store import check as check_module
from d3m_ray.store.check import RECOMPUTED, StoreCheck
from d3m_ray.store.errors import StoreError
from d3m_ray.store.files import Files
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES

CONFIG = d3m.ExperimentConfig(
    d3m.Planted(num_train=40, num_val=16, num_test=16),
    model="tiny",
    methods=("trak", "trak_auto", "random"),
    num_removed=(0, 5),
    seeds=(0,),
    training=d3m.TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=d3m.TrakConfig(projection_dim=16),
)
FAILURE = {"experiment": "mine", "num_removed": 5, "seed": 0, "error": "e", "traceback": "t"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("checked") / "store"
    assert not d3m.run(CONFIG, folder, engine="local").failed
    return Store(folder)


@pytest.fixture
def folder(finished: Store, tmp_path: Path) -> Path:
    """A copy that a test may spoil, with a failure and an LDS of another experiment."""
    folder = Path(shutil.copytree(str(finished), tmp_path / "store"))
    store = Store(folder)
    failure = pd.DataFrame([{"trial_key": "k1", **FAILURE, "created_at": pd.Timestamp(0, tz="UTC")}])
    store.write("failures", "k1", failure.astype({"num_removed": "Int64"}), {}, "trak")
    row = dict.fromkeys(TABLES["lds"].schema.names) | {"lds_key": "k1", "experiment": "mine", "kind": "query"}
    row |= {"target": "mean", "num_subsets": 5, "scoring_seconds": 1.0}
    store.write("lds", "k1", pd.DataFrame([row]), {}, "trak")
    return folder


def first_file(folder: Path, table: str) -> Path:
    """The first of a table's files, of the trials that removed something."""
    paths = sorted(path for path in (folder / table).rglob("*") if path.is_file())
    if table == "trials":
        keys = {path.stem for path in (folder / "removals").rglob("*.parquet")}
        return next(path for path in paths if path.stem in keys)
    return paths[0]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def turn_a_bit(path: Path) -> None:
    """Of the last byte of a column, or where there are none, of the file."""
    data, place = bytearray(path.read_bytes()), -1
    if path.suffix == ".parquet":
        column = pq.read_metadata(path).row_group(0).column(0)
        place = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
    data[place] ^= 1
    path.write_bytes(data)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def status_of(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_a_whole_store_is_whole_and_stays_as_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(folder)
    for flags in ((), ("--repair",)):
        assert status_of("check", str(folder), *flags) == 0
        num_files = len(before) - 1 - len(list((folder / "figures").rglob("*.*")))  # all but the format's
        assert capsys.readouterr().out == f"{folder}: {num_files} files read, all whole\n"
    assert contents(folder) == before


@pytest.mark.parametrize("table", RECOMPUTED)
def test_a_damaged_file_of_any_kind_is_named_deleted_and_recomputed(
    table: str,
    folder: Path,
    finished: Store,
    capsys: pytest.CaptureFixture[str],
    assert_same_results: Callable[[Store, Store], None],
) -> None:
    Store(folder).compact(print)
    path = first_file(folder, table)
    (turn_a_bit if path.suffix in (".parquet", ".safetensors") else cut)(path)
    spoilt = contents(folder)
    assert status_of("check", str(folder)) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.out.splitlines() if line.startswith("damaged: "))
    assert line.startswith(f"damaged: {path} (")
    assert line.endswith(f"; the same sweep, run again, {RECOMPUTED[table]}")
    assert f"d3m-ray check {folder} --repair deletes the damaged files" in said.out
    (experiment,) = finished.read_experiments()
    is_known = table not in ("failures", "lds", "preparations", "logs", "compacted")
    assert (f"{experiment}: its sweep, run again" in said.out) == is_known
    assert contents(folder) == spoilt
    assert status_of("check", str(folder), "--repair") == 0
    del spoilt[path]
    assert contents(folder) == spoilt
    assert not d3m.run(CONFIG, folder, engine="local").failed
    assert Store(folder).check().is_whole
    assert_same_results(Store(folder), finished)


@pytest.mark.parametrize("table", ["fits", "removals", "examples", "alignments", "scores", "query_scores"])
def test_what_stored_trials_rest_on_and_is_gone_is_named_and_recomputed(
    table: str,
    folder: Path,
    finished: Store,
    capsys: pytest.CaptureFixture[str],
    assert_same_results: Callable[[Store, Store], None],
) -> None:
    path = first_file(folder, table)
    path.unlink()
    assert status_of("check", str(folder)) == 1
    said = capsys.readouterr().out
    (experiment,) = Store(folder).read_experiments()
    line = (
        f"missing: {path} (stored results rest on it, of {experiment}); the same sweep, run again, {RECOMPUTED[table]}"
    )
    assert line in said.splitlines()
    assert f"d3m-ray run {folder}/experiments/{experiment}.json" in said
    assert not d3m.run(CONFIG, folder, engine="local").failed
    assert d3m.check_store(folder).is_whole
    assert_same_results(Store(folder), finished)


def test_a_record_that_is_gone_is_missing_where_there_are_trials(folder: Path) -> None:
    (path,) = (folder / "experiments").iterdir()
    path.unlink()
    found = d3m.check_store(folder)
    assert [fault.path for fault in found.missing] == [f"experiments/{path.name}"]
    assert found.experiments == (path.stem,)


def test_a_sweep_that_has_only_begun_lacks_nothing(tmp_path: Path) -> None:
    keys = {"fits": {"base model, seed 0": "k1"}, "alignments": {"trak": "k1"}, "scores": {"trak": "k1"}}
    Store(tmp_path).write_experiment("ants", {"dataset": "ants", "model": "tiny", "data_hash": "d"}, [], keys)
    assert d3m.check_store(tmp_path) == StoreCheck(1)


def test_what_another_version_wrote_is_named_and_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first_file(folder, "fits")
    pq.write_table(pq.read_table(path).drop_columns("predicted"), path)
    for flags in ((), ("--repair",)):
        assert status_of("check", str(folder), *flags) == 1
        assert f"unreadable: {path} (it has no column predicted); left as it is" in capsys.readouterr().out
    assert path.exists()


def test_a_file_that_was_written_again_meanwhile_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged, rewritten = (sorted((folder / "fits").iterdir())[place] for place in (0, 1))
    whole = rewritten.read_bytes()
    cut(damaged)
    cut(rewritten)
    find = check_module._uses

    def meanwhile(*given: object) -> object:
        rewritten.write_bytes(whole)
        return find(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(check_module, "_uses", meanwhile)
    found = Store(folder).check(repair=True)
    assert (len(found.damaged), found.num_deleted) == (2, 1)
    assert not damaged.exists()
    assert rewritten.read_bytes() == whole


def test_a_file_that_was_forgotten_meanwhile_is_no_fault(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, get = f"failures/method=trak/{first_file(folder, 'failures').name}", Files.get

    def forgotten(files: Files, of: str) -> object:
        (folder / path).unlink(missing_ok=True)
        return get(files, of)

    monkeypatch.setattr(Files, "get", forgotten)
    assert Store(folder).check().is_whole


@pytest.mark.parametrize("is_local", [True, False])
def test_what_cannot_be_read_is_never_deleted(is_local: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine, a file of a bad sector is named; a bucket that stops to answer says nothing of its files."""
    path, get = first_file(folder, "fits"), Files.get

    def broken(files: Files, of: str) -> object:
        if of.endswith(path.name):
            raise StoreError(f"{of} cannot be read (Input/output error)") from OSError(5, "Input/output error")
        return get(files, of)

    monkeypatch.setattr(Files, "get", broken)
    monkeypatch.setattr(Files, "is_local", is_local)
    if is_local:
        found = Store(folder).check(repair=True)
        assert [(fault.path, fault.reason) for fault in found.foreign] == [(f"fits/{path.name}", "Input/output error")]
    else:
        with pytest.raises(StoreError, match="cannot be read"):
            Store(folder).check(repair=True)
    assert path.exists()


def test_a_record_that_names_what_no_store_has_is_no_fault(folder: Path) -> None:
    """A table of a later version, an arm that can have no folder."""
    (path,) = (folder / "experiments").iterdir()
    record = json.loads(path.read_text())
    path.write_text(
        json.dumps(record | {"keys": {"tomes": {"a": "k"}, "scores": {"../a b": "k"}, "fits": {"a b": "k"}}})
    )
    assert Store(folder).check().is_whole


def test_the_reason_is_told_alone_wherever_the_store_lies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = folder.rename(folder.parent / "an odd (store)")
    path = first_file(odd, "fits")
    path.write_bytes(b"")
    assert status_of("check", str(odd)) == 1
    said = capsys.readouterr().out
    assert f"damaged: {path} (Parquet file size is 0 bytes); the same" in said
    assert f"d3m-ray check '{odd}' --repair" in said
    assert f"d3m-ray run '{odd}/experiments/" in said


@pytest.mark.parametrize("table", ["fits", "experiments"])
def test_what_does_not_fit_into_memory_is_named_and_kept(
    table: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = first_file(folder, table)

    def memory_error(data: object) -> object:
        raise MemoryError

    with pytest.MonkeyPatch.context() as patch:
        store = Store(folder)
        patch.setattr("d3m_ray.store.files.MEMORY_BYTES", 9)
        with pytest.raises(StoreError, match=f"{path} cannot be read .it does not fit into memory.: delete it"):
            store._files.get(f"{table}/{path.name}")
    read = Files.read

    def too_large(files: Files, of: str, parse: Callable[[object], object]) -> object:
        return read(files, of, memory_error if of.endswith(path.name) else parse)

    monkeypatch.setattr(Files, "read", too_large)
    monkeypatch.setattr(check_module, "check_result", lambda files, of_table, of: files.read(of, lambda data: None))
    assert status_of("check", str(folder), "--repair") == 1
    assert f"unreadable: {path} (it does not fit into memory); left as it is" in capsys.readouterr().out
    assert path.exists()


@pytest.mark.parametrize("table", ["fits", "checkpoints"])
def test_a_folder_in_the_place_of_a_file_is_told(table: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = first_file(folder, table)
    path.unlink()
    path.mkdir()
    for flags in ((), ("--repair",)):
        assert status_of("check", str(folder), *flags) == 1
        told = f"unreadable: {path} (a folder lies in its place: move it away); left as it is"
        assert capsys.readouterr().out.splitlines()[0] == told
    with pytest.raises(StoreError, match=f"a result is a file, {path} is a folder; move it away"):
        Store(folder)._files.put(f"{table}/{path.name}", b"")


def test_the_preparation_of_another_model_is_no_ones(folder: Path) -> None:
    (path,) = (folder / "preparations").iterdir()
    path.with_stem("another").write_bytes(path.read_bytes())
    assert Store(folder).read_preparation(path.stem) is not None
    assert Store(folder).read_preparation("another") is None
    (fault,) = Store(folder).check().damaged
    assert fault.reason == f"its key is {path.stem}, its name says otherwise"


def test_a_file_in_the_place_of_a_table_is_named(folder: Path) -> None:
    (folder / "logs").rename(folder / "aside")
    (folder / "logs").touch()
    with pytest.raises(StoreError, match=f"the store needs a folder, {folder}/logs is a file; move it away"):
        Store(folder).check()


def test_where_a_bucket_tells_parts_of_a_second_in_listings_alone_damaged_files_go(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions_of = Files.versions_of

    def in_whole_seconds(files: Files, paths: Iterable[str]) -> dict[str, str]:
        return {path: f"{of[:-9]}000000000" for path, of in versions_of(files, paths).items()}

    monkeypatch.setattr(Files, "versions_of", in_whole_seconds)
    path = first_file(folder, "fits")
    cut(path)
    assert Store(folder).check(repair=True).num_deleted == 1
    assert not path.exists()


def test_a_fit_that_is_written_meanwhile_is_not_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits are listed before trials, and a sweep that runs beside writes both."""
    path, find = first_file(folder, "fits"), check_module._uses
    data = path.read_bytes()
    path.unlink()

    def meanwhile(*given: object) -> object:
        path.write_bytes(data)
        return find(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(check_module, "_uses", meanwhile)
    assert Store(folder).check().is_whole


def test_a_trial_that_is_forgotten_meanwhile_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, scan = first_file(folder, "trials"), check_module.scan_results

    def forgotten(*given: object) -> object:
        path.unlink(missing_ok=True)
        return scan(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(check_module, "scan_results", forgotten)
    assert Store(folder).check().is_whole


@pytest.mark.parametrize("name", ["nothing", "foreign"])
def test_where_there_is_no_store_there_is_nothing_to_check(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "file.txt").write_text("not ours")
    before = contents(tmp_path)
    assert status_of("check", str(tmp_path / name), "--repair") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert contents(tmp_path) == before
    assert not (tmp_path / "nothing").exists()


def test_a_reader_that_would_write_is_stopped(folder: Path) -> None:
    reader = Store(folder).reader()
    before = contents(folder)
    with pytest.raises(RuntimeError, match="opened to be read alone"):
        reader.check_writable()
    with pytest.raises(RuntimeError, match="opened to be read alone"):
        reader.delete_failure("k1", "trak")
    cut(first_file(folder, "fits"))
    with pytest.raises(RuntimeError, match="opened to be read alone"):
        reader.check(repair=True)
    assert contents(folder).keys() == before.keys()
