"""Which Ray an address means, and whether it answers: asked in a moment, and without Ray."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from d3m_ray.cluster import addresses
from d3m_ray.commands import engines
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import ExecutionConfig

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "127.0.0.1:1"


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """The address of a server that gives one answer to whoever greets it; it closes in silence where that is empty."""

    def serve() -> None:
        with suppress(OSError):  # the end of the test closes the socket
            while True:
                connection, _ = listening.accept()
                with connection:
                    connection.recv(1024)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)


LIKE_RAY = b"\0\0\0\x04\0\0\0\0\0"  # an empty frame of settings


def test_a_mute_server_is_given_up(monkeypatch):
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert not addresses.answers(f"127.0.0.1:{mute.getsockname()[1]}")


def test_auto_joins_what_ray_start_began_and_nothing_that_has_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert addresses.begun_with_ray_start() is None
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    with answering(LIKE_RAY) as address:
        note.write_text(address)
        assert addresses.begun_with_ray_start() == address
    assert addresses.begun_with_ray_start() is None


def test_what_an_address_means(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert addresses.meant_by("auto") == ("--address", addresses.LOCAL)
    assert addresses.meant_by(NOWHERE) == ("--address", NOWHERE)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert addresses.meant_by("auto") == ("RAY_ADDRESS", "ray://head:10001")
    assert addresses.meant_by("local") == ("--address", "local"), "whoever names one means that one"


def test_a_process_that_is_on_a_cluster_is_asked_for_no_address(monkeypatch):
    class Ray:
        @staticmethod
        def is_initialized() -> bool:
            return is_on

    monkeypatch.setitem(sys.modules, "ray", Ray)
    is_on = True
    addresses.check_address(NOWHERE)
    is_on = False
    with pytest.raises(ConnectionError, match=f"no Ray answers at {NOWHERE}"):
        addresses.check_address(NOWHERE)


def test_an_unreachable_cluster_is_told_where_all_may_be_stored_and_refused_where_it_cannot_be(tmp_path, monkeypatch):
    """What is finished joins none; an LDS joins one always."""
    config = ExperimentConfig(Planted(), execution=ExecutionConfig(address=NOWHERE))
    said: list[str] = []
    progress, store = Progress(), Store(tmp_path)
    monkeypatch.setattr(progress, "stage", said.append)
    with pytest.raises(ConnectionError, match="no Ray answers"):
        engines.check_cluster(config, store, progress)
    monkeypatch.setattr(Store, "keys", lambda self, table: {"a-trial"})
    engines.check_cluster(config, store, progress)
    (line,) = said
    assert line.startswith(f"warning: --address names a running cluster, auto or local; no Ray answers at {NOWHERE}: ")
    assert line.endswith("; without it the run ends as soon as there is something to train or score")
    with pytest.raises(ConnectionError, match="no Ray answers"):
        engines.check_cluster(config, store, progress, may_be_done=False)
    engines.check_cluster(ExperimentConfig(Planted(), execution=ExecutionConfig("local", NOWHERE)), store, progress)
    assert len(said) == 1


@pytest.mark.parametrize("command", ["run", "lds"])
def test_an_unreachable_cluster_is_refused_before_anything_slow_is_loaded(command, tmp_path):
    arguments = [command, "planted", "--store", str(tmp_path / "store"), "--address", NOWHERE]
    script = (
        "import sys\nfrom d3m_ray.__main__ import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit as ended:\n    print(ended.code)\n"
        "print(sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    )
    called = [sys.executable, "-c", script]
    shown = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout.splitlines() == ["2", "[]"]
    assert f"no Ray answers at {NOWHERE}" in shown.stderr
    assert not (tmp_path / "store").exists()
