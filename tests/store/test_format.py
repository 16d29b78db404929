"""The format of a store: recorded where a sweep begins, an older one read, a later one refused by all alike."""

import json
import pickle
from pathlib import Path

import pytest

import d3m_ray
from d3m_ray.__main__ import main
from d3m_ray.store import format as module
from d3m_ray.store.errors import StoreError
from d3m_ray.store.files import Files
from d3m_ray.store.format import FORMAT, FORMAT_FILE
from d3m_ray.store.provenance import software
from d3m_ray.store.store import Store

CONFIGURATION = {"dataset": "ants", "model": "tiny"}


def recorded(root: Path) -> dict:
    return json.loads((root / FORMAT_FILE).read_text())


def write_format(root: Path, content: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / FORMAT_FILE).write_text(content)
    return root


def test_the_first_experiment_records_the_format_and_what_wrote_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_checkpoint("k1", {})
    assert not (tmp_path / FORMAT_FILE).exists()
    store.write_experiment("ants-1", CONFIGURATION, [])
    assert recorded(tmp_path) == {"format": FORMAT, **software()}


def test_a_store_without_a_record_is_older_and_is_read_and_gone_on_with(tmp_path: Path, monkeypatch) -> None:
    Store(tmp_path).write_experiment("ants-1", CONFIGURATION, [("trak", 0, 0)])
    (tmp_path / FORMAT_FILE).unlink()
    monkeypatch.setattr(module, "FORMAT", FORMAT + 1)
    assert list(Store(tmp_path).read_experiments()) == ["ants-1"]
    assert not (tmp_path / FORMAT_FILE).exists(), "reading changes nothing"
    Store(tmp_path).write_experiment("ants-2", CONFIGURATION, [])
    assert recorded(tmp_path)["format"] == FORMAT + 1


def test_what_a_later_version_goes_on_with_is_of_its_format(tmp_path: Path, monkeypatch) -> None:
    Store(tmp_path).write_experiment("ants-1", CONFIGURATION, [])
    with monkeypatch.context() as later:
        later.setattr(module, "FORMAT", FORMAT + 1)
        Store(tmp_path).write_experiment("ants-1", CONFIGURATION, [])
    with pytest.raises(StoreError, match=f"has format {FORMAT + 1}"):
        Store(tmp_path)


def test_the_record_is_read_once_and_written_once(tmp_path: Path, monkeypatch) -> None:
    """On a bucket each costs a request: a trial's store, which came by pickle, makes none."""
    store = Store(tmp_path)
    store.write_experiment("ants-1", CONFIGURATION, [])
    touched, put, get = [], Files.put, Files.get
    monkeypatch.setattr(Files, "put", lambda files, path, data: (touched.append(path), put(files, path, data))[1])
    monkeypatch.setattr(Files, "get", lambda files, path: (touched.append(path), get(files, path))[1])
    travelled = pickle.loads(pickle.dumps(store))
    travelled.write_experiment("ants-1", CONFIGURATION, [])
    assert touched == ["experiments/ants-1.json"] * 2


@pytest.mark.parametrize("command", [["status"], ["run", "planted", "--store"]], ids=["reader", "sweep"])
def test_a_later_format_is_refused_in_one_line_by_readers_and_sweeps(tmp_path: Path, command, capsys) -> None:
    later = json.dumps({"format": FORMAT + 1, "package_version": "7.1.0", "more": {}})
    write_format(tmp_path / "store", later)
    line = f"has format {FORMAT + 1}, written by 7.1.0, and this is {d3m_ray.__version__}, which knows formats up to"
    with pytest.raises(StoreError, match=line):
        d3m_ray.read_trials(tmp_path / "store")
    with pytest.raises(SystemExit) as ended:
        main([*command, str(tmp_path / "store")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert line in said
    assert len(said.strip().splitlines()) == 1
    assert [path.name for path in (tmp_path / "store").iterdir()] == [FORMAT_FILE], "nothing was written"


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "{}", "[" * 100_000, '{"format": 1}', '{"format": 1, "package_version": 0.1}'),
        *(f'{{"format": {value}, "package_version": "0.1.0"}}' for value in ('"1"', "true", "0", "1.0")),
    ],
)
def test_a_record_that_cannot_be_understood_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(StoreError, match=r"tells the store's format and is damaged .*: restore it; where no later"):
        Store(write_format(tmp_path / "store", content))
