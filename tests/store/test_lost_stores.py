"""A disk that is full, read-only or gone, a bucket that falls silent: one line, and what was stored is whole."""

import contextlib
import dataclasses
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import d3m_ray as d3m
from d3m_ray.__main__ import main
from d3m_ray.analysis.figures import catalogue
from d3m_ray.experiment.failures import told
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store.errors import StoreError, UnusableError
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES
from d3m_ray.trials.engine import LocalEngine

FLAGS = ("--num-train", "40", "--num-val", "16", "--num-test", "16", "--num-epochs", "1", "--engine", "local")
FLAGS = (*FLAGS, "--methods", "trak", "random", "--num-removed", "0", "5", "--projection-dim", "16")
SMALL = d3m.ExperimentConfig(
    d3m.Planted(num_train=40, num_val=16, num_test=16),
    model="tiny",
    methods=("trak", "random"),
    num_removed=(0, 5),
    seeds=(0,),
    training=d3m.TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=d3m.TrakConfig(projection_dim=16),
)


@pytest.fixture(autouse=True)
def _no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "all_figures", lambda results: {})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "store"
    assert not d3m.run(SMALL, folder, engine="local").failed
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, in memory, that holds two mebibytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if mount is None or os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode != 0:
        pytest.skip("a file system of its own is mounted by root alone, and not in every container")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def status_of(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(store: Store, engine: LocalEngine) -> list[str]:
    """What failed of a run, a line each."""
    with Progress() as progress:
        outcome = run_experiment(prepare(SMALL, store, progress), engine, progress)
    return told(outcome.failed, outcome.unscored)


# --- a disk ----------------------------------------------------------------------------------------------------------


class _Between(LocalEngine):
    """Something happens when the first fits are done."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = happens

    def begin_fits(self, context, fits, on_fit):  # type: ignore[no-untyped-def]
        failed = super().begin_fits(context, fits, on_fit)
        self._happens()
        return failed


def test_a_full_disk_ends_a_sweep_in_one_line_and_what_is_stored_is_whole(
    small_disk: Path,
    tmp_path: Path,
    finished: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    assert_same_results: Callable[[Store, Store], None],
) -> None:
    store, ballast = small_disk / "store", small_disk / "ballast"
    begin_fits = LocalEngine.begin_fits

    def fills_up(engine, context, fits, on_fit):  # type: ignore[no-untyped-def]
        failed = begin_fits(engine, context, fits, on_fit)
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        return failed

    monkeypatch.setattr(LocalEngine, "begin_fits", fills_up)
    command = ("run", "planted", "--store", str(store), "--figures", str(tmp_path / "figures"), "--seeds", "0", *FLAGS)
    assert status_of(*command) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: the store {store} cannot be written (No space left on device): free some space")
    assert last.endswith("; the same command goes on from what is stored")
    assert not list((store / ".unfinished").iterdir())
    found = Store(store).check()
    assert (found.damaged, found.foreign) == ((), ())
    assert len(Store(store).keys("fits")) == 1, "the base model, which is waited for first"
    ballast.unlink()
    monkeypatch.setattr(LocalEngine, "begin_fits", begin_fits)
    assert status_of(*command) == 0
    assert_same_results(Store(store), Store(finished))


def test_a_finished_store_on_a_disk_that_cannot_be_written_is_read_by_every_command(
    small_disk: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Path(shutil.copytree(finished, small_disk / "store"))
    damaged = min((store / "fits").iterdir())
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for command in (
        ("status", str(store)),
        ("table", str(store)),
        ("report", str(store), "--out", str(tmp_path / "out")),
        ("figures", str(store), "--out", str(tmp_path / "out")),
        ("examples", str(store), "--method", "trak"),
        ("export", str(store), "--method", "trak", "--num-removed", "5", "--out", str(tmp_path / "kept.csv")),
        ("check", str(store)),
        ("check", str(store), "--repair"),
        ("plan", "planted", "--store", str(store), "--seeds", "0", *FLAGS),
    ):
        assert status_of(*command) == 0, command
    assert len(d3m.read_trials(store)) > 0
    capsys.readouterr()
    for command in (("report", str(store)), ("run", "planted", "--store", str(store), "--seeds", "0", *FLAGS)):
        assert status_of(*command) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "cannot be written (Read-only file system): name a place that can be written" in line
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert status_of("check", str(store), "--repair") == 2
    assert "cannot be written (Read-only file system)" in capsys.readouterr().err
    assert damaged.exists()


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_store_that_is_deleted_while_it_is_written_to_is_not_begun_again(comes_back: bool, tmp_path: Path) -> None:
    """Nor where an empty folder lies in its place, as where a disk was taken away; by a worker neither."""
    place, in_workers = tmp_path / "store", []

    def deletes() -> None:
        in_workers.append(pickle.loads(pickle.dumps(store)))
        shutil.rmtree(place)
        if comes_back:
            place.mkdir()

    store = Store(place)
    with pytest.raises(StoreError, match=r"has gone since it was begun: its format\.json is not there any more"):
        run(store, _Between(deletes))
    with pytest.raises(UnusableError, match=rf"the store {place} has gone since it was begun") as in_worker:
        in_workers[0].write_checkpoint("k1", {"head": np.zeros(3)})
    assert pickle.loads(pickle.dumps(in_worker.value)).args == (str(in_worker.value), False)
    with pytest.raises(StoreError, match=rf"the store {place} has gone since it was begun"):
        in_workers[0].check_writable()
    assert contents(tmp_path) == {}
    assert place.exists() == comes_back


# --- one damaged checkpoint ------------------------------------------------------------------------------------------


def test_a_checkpoint_damaged_while_a_sweep_runs_ends_only_what_reads_it(
    tmp_path: Path, finished: Path, assert_same_results: Callable[[Store, Store], None]
) -> None:
    """The next run trains it again."""
    store = Store(tmp_path)

    def damages() -> None:
        for path in (tmp_path / "checkpoints").iterdir():
            path.write_bytes(path.read_bytes()[:-9])

    (line,) = run(store, _Between(damages))
    assert "is damaged (" in line
    assert f"d3m-ray check {store} --repair" in line
    trials = store.read_all("trials").drop_duplicates(["method", "num_removed"])
    assert sorted(zip(trials["method"], trials["num_removed"], strict=True)) == [
        ("random", 0),
        ("random", 5),
        ("trak", 0),
    ]
    assert store.read_all("failures")["error"].str.contains("is damaged").all()
    assert run(store, LocalEngine()) == []
    assert store.read_all("failures").empty
    assert_same_results(store, Store(finished))


# --- what a store may hold is data -----------------------------------------------------------------------------------


class _Bomb:
    """What it makes when it is unpickled must never be there."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self._place}",)


def test_no_pickle_is_read_from_a_store(finished: Path, tmp_path: Path) -> None:
    """In the place of each file, and as a type of Arrow's that earlier releases of it unpickled."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store, mark = Path(shutil.copytree(finished, tmp_path / "store")), tmp_path / "exploded"
    bomb = pickle.dumps(_Bomb(mark))
    for path in contents(store):
        if path.name != "format.json" and "figures" not in path.parts:
            path.write_bytes(bomb)
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}
    schema = pa.schema([pa.field("fit_key", pa.string(), metadata=extension)])
    pq.write_table(pa.table({"fit_key": ["k1"]}, schema=schema), store / "fits" / "k1.parquet")
    for command in ("status", "table", "check"):
        assert status_of(command, str(store)) in (1, 2)
    for read in (d3m.read_trials, d3m.read_fits, d3m.read_alignments, d3m.read_scores, d3m.read_removals):
        with pytest.raises(StoreError):
            read(store)
    (store / "fits" / "k1.parquet").rename(tmp_path / "k1.parquet")
    opened = Store(store)
    for path in (store / "checkpoints").iterdir():
        with pytest.raises(StoreError):
            opened.read_checkpoint(path.stem)
    for table in TABLES:
        opened.delete_damaged(table, lambda line: None)
    assert not d3m.run(dataclasses.replace(SMALL, experiment="another"), store, engine="local").failed
    assert not mark.exists()


def test_nothing_that_reads_a_store_can_unpickle() -> None:
    """Of the package, a store is read by these; cluster/ and made_up.py pickle what crosses processes, of their own."""
    package = Path(d3m.__file__).parent
    folders = ("store", "analysis", "commands", "experiment", "trials", "training", "selection", "metrics")
    words = ("pickle", "joblib", "shelve", "marshal", "torch.load(", "np.load(", "read_pickle", "allow_pickle")
    using = [
        (str(path.relative_to(package)), word)
        for folder in folders
        for path in (package / folder).rglob("*.py")
        for word in words
        if word in path.read_text(encoding="utf-8").replace("picklable", "").replace("Picklable", "")
    ]
    in_prose = [("store/remote.py", "pickle")]
    assert [each for each in using if each not in in_prose] == []


@pytest.mark.parametrize(
    "uri", ["s3://SOMEBODY:hunter2@bucket/store", "s3://a:hun/ter2@bucket", "ftp://a:hunter2@host/x"]
)
def test_a_password_in_a_uri_is_refused_and_not_repeated(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It would stand in every message, log and page."""
    assert status_of("status", uri) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert "it holds no secret" in line
    assert "ter2" not in said.out + said.err
