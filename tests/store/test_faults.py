"""What a store does that cannot be written or reached, or whose files are damaged or of an earlier layout."""

import dataclasses
import errno
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_sweep import SMALL

from d3m_ray.experiment.lds import prepare_lds, run_lds
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.experiment.studies import LdsConfig
from d3m_ray.store.errors import DamagedError, StoreError, UnusableError
from d3m_ray.store.files import check_writable_folder
from d3m_ray.store.reachability import reason_out_of_reach
from d3m_ray.store.store import Store
from d3m_ray.store.tables import table_spec
from d3m_ray.trials.engine import LocalEngine

WEIGHTS = {"head.weight": np.linspace(-1, 1, 60, dtype=np.float32).reshape(3, 20), "steps": np.array(5)}


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refuses(number: int) -> Callable[..., None]:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


# --- a store that cannot be written -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name", "number", "line"),
    [
        (Path, "mkdir", errno.EROFS, r"\(Read-only file system\): name a place that can be written"),
        (Path, "mkdir", errno.EACCES, r"\(Permission denied\): name a place that this user may read and write"),
        (Path, "open", errno.EACCES, r"\(Permission denied\): name a place that this user may read and write"),
        (os, "fsync", errno.ENOSPC, r"\(No space left on device\): free some space, or name another place"),
        (os, "fsync", errno.EIO, r"\(Input/output error\): see to it, or name another place"),
        (Path, "replace", errno.EDQUOT, r"\(Disk quota exceeded\): free some space, or name another place"),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_what_cannot_be_written_is_said_and_leaves_nothing(
    owner: Any, name: str, number: int, line: str, begun: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "some" / "store")
    if begun:
        store.write_checkpoint("k1", WEIGHTS)
        assert listing(tmp_path / "some" / "store") == {".unfinished", "checkpoints", "checkpoints/k1.safetensors"}
    before = listing(tmp_path)
    monkeypatch.setattr(owner, name, refuses(number))
    with pytest.raises(StoreError, match=rf"the store {store} cannot be written {line}"):
        store.check_writable()
    with pytest.raises(StoreError, match=rf"--figures {tmp_path}/some/figures cannot be written {line}"):
        check_writable_folder(tmp_path / "some" / "figures", "--figures")
    assert listing(tmp_path) == before
    kind = StoreError if number == errno.EIO else UnusableError  # which may pass by itself
    with pytest.raises(StoreError, match=line) as refused:
        store.write_experiment("ants", {"dataset": "ants", "model": "tiny"}, [])
    assert refused.type is kind
    assert kind is StoreError or refused.value.args[1] == (number in (errno.ENOSPC, errno.EDQUOT)), "so everywhere"
    assert {path for path in listing(tmp_path) if not (tmp_path / path).is_dir()} == {
        path for path in before if not (tmp_path / path).is_dir()
    }


def test_asking_leaves_everything_as_it_was(tmp_path: Path) -> None:
    store = Store(tmp_path / "some" / "store")
    store.check_writable()
    assert listing(tmp_path) == set()
    store.write_checkpoint("k1", WEIGHTS)
    before = listing(tmp_path)
    store.check_writable()
    check_writable_folder(tmp_path / "some" / "store" / "figures", "--figures")
    assert listing(tmp_path) == before


def test_a_store_under_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    line = rf"needs a folder, {tmp_path}/file is a file; name another place"
    for root in (tmp_path / "file" / "store", tmp_path / "file" / "some" / "store"):
        with pytest.raises(StoreError, match=line):
            Store(root)
        with pytest.raises(StoreError, match=line):
            Store(f"file://{root}")
        with pytest.raises(StoreError, match=line):
            check_writable_folder(root, "--figures")
    with pytest.raises(StoreError, match="File name too long"):
        Store(tmp_path / ("s" * 300))
    assert listing(tmp_path) == {"file"}


def test_a_sweep_whose_disk_fills_up_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    put, num_left = os.fsync, [6]

    def fills_up(file: int) -> None:
        num_left[0] -= 1
        if num_left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        put(file)

    monkeypatch.setattr(os, "fsync", fills_up)
    with pytest.raises(StoreError, match=r"cannot be written \(No space left on device\)"), Progress() as progress:
        run_experiment(prepare(SMALL, store, progress), LocalEngine(), progress)
    assert list((tmp_path / ".unfinished").iterdir()) == []
    for table in ("fits", "trials", "alignments", "scores", "removals", "failures"):
        store.read_all(table)


# --- a store that cannot be reached -----------------------------------------------------------------------------------


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port of this machine that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


@pytest.fixture(autouse=True)
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither credentials nor a metadata service to ask for some."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def remote(scheme: str, port: int) -> str:
    host, region = ("bucket", "&region=us-east-1") if scheme == "s3" else ("anonymous@bucket", "")
    return f"{scheme}://{host}/store?endpoint_override=127.0.0.1%3A{port}&scheme=http{region}"


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_bucket_that_never_answers_is_waited_for_in_seconds(scheme: str, silent_port: int) -> None:
    start = time.monotonic()
    assert reason_out_of_reach(remote(scheme, silent_port), seconds=0.5) == "no answer within 0.5 s"
    assert time.monotonic() - start < 8


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_command_on_a_bucket_out_of_reach_ends_with_one_line(scheme: str, closed_port: int) -> None:
    root, start = remote(scheme, closed_port), time.monotonic()
    command = [sys.executable, "-m", "d3m_ray", "status", root]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert time.monotonic() - start < 30
    assert outcome.returncode == 2
    assert outcome.stderr.startswith(f"error: the store {root} cannot be reached: ")
    assert outcome.stderr.endswith("check its name, the network and the credentials, or name a local folder\n")
    assert outcome.stderr.count("\n") == 1
    assert "onnect" in outcome.stderr, "why"


class _Forbids(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


def test_a_bucket_without_credentials_is_refused() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Forbids) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(StoreError, match=r"cannot be reached: .*ACCESS_DENIED.*; check its name, the network and"):
            Store(remote("s3", server.server_port))
        server.shutdown()


# --- damaged files ----------------------------------------------------------------------------------------------------


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_a_flipped_bit_or_a_lost_end_is_never_a_result(tmp_path: Path) -> None:
    store, scores = Store(tmp_path), np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    store.write_scores("scores", "k1", scores, ["a", "b", "c", "d"], ["x", "y", "z"], {}, "trak")
    store.write_checkpoint("k1", WEIGHTS)

    def read_scores() -> list[np.ndarray]:
        return [store.read_scores("scores", "k1", ["a", "b", "c", "d"], ["x", "y", "z"], "trak")]

    def read_weights() -> list[np.ndarray]:
        found = store.read_checkpoint("k1")
        return [found[name] for name in WEIGHTS]

    for name, read in (("scores/method=trak/k1.parquet", read_scores), ("checkpoints/k1.safetensors", read_weights)):
        path, whole = tmp_path / name, read()
        data, num_told = path.read_bytes(), 0
        changed = [flipped(data, position) for position in range(0, len(data), 3)]
        changed += [data[:length] for length in range(0, len(data), 20)]
        for content in changed:
            path.write_bytes(content)
            try:
                found = read()
            except StoreError:
                num_told += 1
            else:
                for array, expected in zip(found, whole, strict=True):
                    np.testing.assert_array_equal(array, expected, strict=True)
        assert num_told > 0.5 * len(changed)
        path.write_bytes(data)


def test_a_flipped_bit_of_what_produced_a_result_is_never_told(tmp_path: Path) -> None:
    """Pages have checksums; the end of a Parquet file, where its metadata stand, has none of its own."""
    store = Store(tmp_path)
    store.write("fits", "k1", frame_of("fits", "k1"), {"seeds": list(range(10_000, 10_050))})
    told, path = store.read_metadata("fits", "k1"), tmp_path / "fits" / "k1.parquet"
    data, num_found = path.read_bytes(), 0
    for position in range(len(data) // 2, len(data), 5):
        path.write_bytes(flipped(data, position))
        try:
            assert store.read_metadata("fits", "k1") == told
        except StoreError:
            num_found += not store.has_whole("fits", "k1", None, lambda line: None)
            path.write_bytes(data)
    assert num_found > 50


def test_errors_cross_processes(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(DamagedError("x is damaged (why)", "my results")))
    assert str(error) == (
        "x is damaged (why); d3m-ray check 'my results' --repair deletes it, and the same sweep run again recomputes it"
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("finished"))
    with Progress() as progress:
        run_experiment(prepare(SMALL, store, progress), LocalEngine(), progress)
    return store


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damaged", "lost"),
    [
        (["trials/**/*.parquet"], []),
        (["removals/**/*.parquet"], []),
        ([], ["removals/method=*"]),
        (["fits/*.parquet"], []),
        ([], ["fits"]),
        (["fits/*.parquet"], ["trials/method=*"]),
        (["alignments/**/*.parquet"], []),
        (["scores/**/*.parquet"], []),
        ([], ["scores/method=*"]),
        (["alignments/**/*.parquet", "scores/**/*.parquet"], []),
        (["checkpoints/*"], ["alignments/method=*", "scores/method=*"]),
        (["checkpoints/*", "scores/**/*.parquet"], ["alignments/method=*"]),
    ],
)
def test_a_sweep_makes_damaged_results_again_and_says_so(
    damaged: list[str],
    lost: list[str],
    finished: Store,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    assert_same_results: Callable[[Store, Store], None],
) -> None:
    store = Store(shutil.copytree(str(finished), tmp_path / "store"))
    for pattern in lost:
        for folder in (tmp_path / "store").glob(pattern):
            shutil.rmtree(folder)
    paths = [path for pattern in damaged for path in sorted((tmp_path / "store").glob(pattern))]
    assert paths or lost
    for path in paths:
        damage(path)
    with Progress() as progress:
        assert run_experiment(prepare(SMALL, store, progress), LocalEngine(), progress).failed == []
    said = capsys.readouterr().err
    for path in paths:
        assert f"{path} is damaged (" in said
        assert said.count(str(path)) == 1
    assert_same_results(store, finished)
    for table in ("scores", "fits"):
        pd.testing.assert_frame_equal(store.read_all(table), finished.read_all(table))


@pytest.mark.parametrize("seeds", [(0,), (1,)])
def test_lost_removals_are_recorded_again_without_a_fit(
    seeds: tuple[int, ...], finished: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(shutil.copytree(str(finished), tmp_path / "store"))
    (lost,) = (tmp_path / "store").glob("removals/method=random/*")
    lost.unlink()
    with Progress() as progress:
        config = dataclasses.replace(SMALL, seeds=seeds)
        run_experiment(prepare(config, store, progress), LocalEngine(), progress)
    said = capsys.readouterr().err
    assert "1 stored trial without the list of what was removed" in said
    assert lost.exists() == (seeds == (0,)), "a trial that nobody asks for now"
    assert store.has("trials", lost.stem, "random") == lost.exists()
    if seeds == (0,):
        assert said.count("0 fits to train") == said.count(" to train")


def test_one_fit_that_is_lost_is_trained_again_alone(
    finished: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(shutil.copytree(str(finished), tmp_path / "store"))
    trials = store.read_all("trials")
    (key,) = trials[(trials["method"] == "random") & (trials["num_removed"] > 0)]["fit_key"].unique()
    (tmp_path / "store" / "fits" / f"{key}.parquet").unlink()
    with Progress() as progress:
        run_experiment(prepare(SMALL, store, progress), LocalEngine(), progress)
    said = capsys.readouterr().err
    assert "1 fit of stored trials lost or damaged: to be trained again" in said
    assert "1 fit to train" in said
    pd.testing.assert_frame_equal(store.read("fits", key), finished.read("fits", key))


@pytest.mark.parametrize("table", ["fits", "trials", "alignments", "scores", "removals", "checkpoints"])
def test_a_file_copied_over_another_is_never_that_one(table: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key, shift in (("k1", 0.0), ("k2", 1.0)):
        if table == "checkpoints":
            store.write_checkpoint(key, {"head.weight": np.full(3, shift)})
        elif table == "scores":
            store.write_scores("scores", key, np.full((2, 1), shift), ["a", "b"], ["x"], {}, "trak")
        else:
            store.write(table, key, frame_of(table, key), {}, None if table == "fits" else "trak")
    first, second = sorted(path for path in (tmp_path / table).rglob("k*"))
    shutil.copy(first, second)
    line = rf"{second} is damaged \(its .* k1.*\); d3m-ray check {tmp_path} --repair deletes it"
    said: list[str] = []
    if table == "checkpoints":
        with pytest.raises(DamagedError, match=line):
            store.read_checkpoint("k2")
        assert not store.has_whole_checkpoint("k2", said.append)
    else:
        method = None if table == "fits" else "trak"
        with pytest.raises(DamagedError, match=line):
            store.read(table, "k2", method)
        with pytest.raises(DamagedError, match=line):
            store.read_all(table, columns=[table_spec(table).schema.names[1]])
        store.delete_damaged(table, said.append)
        assert store.keys(table) == {"k1"}
    assert len(said) == 1
    assert first.exists()
    assert not second.exists()


def frame_of(table: str, key: str) -> pd.DataFrame:
    """One row of made-up values."""
    made_up = {
        "string": "x",
        "int64": 1,
        "double": 0.5,
        "float": 0.5,
        "timestamp[us, tz=UTC]": pd.Timestamp(0, tz="UTC"),
    }
    schema = table_spec(table).schema
    row = {field.name: made_up[str(field.type)] for field in schema}
    return pd.DataFrame([{**row, schema.names[0]: key}])


def test_an_lds_makes_damaged_results_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = LdsConfig(dataclasses.replace(SMALL, methods=("trak",)), num_subsets=3, fits_per_subset=1)
    store = Store(tmp_path)

    def measure() -> pd.DataFrame:
        with Progress() as progress:
            assert run_lds(prepare_lds(config, store, progress), LocalEngine(), progress).failed == []
        return store.read_all("lds").drop(columns="scoring_seconds")

    before = measure()
    paths = [
        *tmp_path.glob("fits/*.parquet"),
        *tmp_path.glob("checkpoints/*"),
        *tmp_path.glob("query_scores/**/*.parquet"),
    ]
    assert len(paths) == 4 + 1 + 1
    for path in paths:
        damage(path)
    capsys.readouterr()
    pd.testing.assert_frame_equal(measure(), before)
    said = capsys.readouterr().err
    assert all(said.count(f"{path} is damaged (") == 1 for path in paths)


# --- files of an earlier layout ---------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)


def test_score_columns_beside_an_alignment_are_left_out(finished: Store, tmp_path: Path) -> None:
    """What the layout before `scores/` wrote."""
    store = Store(shutil.copytree(str(finished), tmp_path / "store"))
    (path,) = (tmp_path / "store").glob("alignments/**/*.parquet")
    rewrite(path, lambda table: table.append_column("score_amber", pa.array(np.zeros(len(table), dtype=np.float32))))
    (key,) = store.keys("alignments")
    pd.testing.assert_frame_equal(store.read("alignments", key, "trak"), finished.read("alignments", key, "trak"))
    pd.testing.assert_frame_equal(store.read_all("alignments"), finished.read_all("alignments"))


def test_a_column_that_earlier_versions_lack_is_read_as_missing(finished: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(str(finished), tmp_path / "store"))
    path, *others = sorted((tmp_path / "store").glob("trials/**/*.parquet"))
    rewrite(path, lambda content: content.drop_columns(["margin", "soft_accuracy"]))
    old = store.read("trials", path.stem, path.parent.name.removeprefix("method="))
    assert old[["margin", "soft_accuracy"]].isna().all(axis=None)
    trials = store.read_all("trials")
    is_old = trials["trial_key"] == path.stem
    assert trials["soft_accuracy"].isna().equals(is_old)
    pd.testing.assert_frame_equal(
        trials.drop(columns=["margin", "soft_accuracy"]),
        finished.read_all("trials").drop(columns=["margin", "soft_accuracy"]),
    )
    assert others


@pytest.mark.parametrize(("table", "column"), [("fits", "predicted"), ("trials", "objective"), ("scores", "query_set")])
def test_a_file_without_a_column_is_refused(table: str, column: str, finished: Store, tmp_path: Path) -> None:
    store = Store(shutil.copytree(str(finished), tmp_path / "store"))
    (base_fit,) = store.read_experiments().popitem()[1].keys["fits"].values()
    path = next((tmp_path / "store").glob(f"{table}/**/{base_fit if table == 'fits' else '*'}.parquet"))
    rewrite(path, lambda content: content.drop_columns(column))
    line = rf"{path} was written by another version of d3m_ray \(it has no column {column}\); name another --store"
    method = path.parent.name.removeprefix("method=") if table != "fits" else None
    with pytest.raises(StoreError, match=line):
        store.read_all(table)
    with pytest.raises(StoreError, match=line):
        store.read(table, path.stem, method)
    shutil.rmtree(tmp_path / "store" / "alignments")
    with pytest.raises(StoreError, match=line), Progress() as progress:
        run_experiment(prepare(SMALL, store, progress), LocalEngine(), progress)
    assert path.exists(), "what another version wrote is not deleted"
