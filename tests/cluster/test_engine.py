"""Joining Ray: what cannot be met is refused rather than waited for."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import ray

from d3m_ray.cluster import engine
from d3m_ray.cluster.engine import connected
from d3m_ray.errors import InputError
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import FailedFit
from d3m_ray.trials.settings import ExecutionConfig


@pytest.mark.slow
def test_more_than_this_machine_has_is_refused(tmp_path):
    execution = ExecutionConfig(address="local", gpus_per_trial=64)
    refused = pytest.raises(InputError, match="--gpus-per-trial asks for 64: lower it")
    with refused, connected(execution, Store(tmp_path)):
        pass
    assert not ray.is_initialized()


@pytest.mark.parametrize("named", ["--address", "RAY_ADDRESS"])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_said_at_once(address, named, tmp_path, monkeypatch):
    if named == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    execution = ExecutionConfig(address=address) if named == "--address" else ExecutionConfig()
    refused = pytest.raises(ConnectionError, match=f"{named} names .* no Ray answers at {address}: start the cluster")
    with refused, connected(execution, Store(tmp_path)):
        pass
    assert not ray.is_initialized()


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


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_ray_is_not_waited_for(answer, tmp_path):
    with answering(answer) as address:
        refused = pytest.raises(ConnectionError, match=f"no Ray answers at {address}")
        with refused, connected(ExecutionConfig(address=address), Store(tmp_path)):
            pass
    assert not ray.is_initialized()


def test_a_mute_server_is_given_up(monkeypatch):
    monkeypatch.setattr(engine, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert not engine._answers(f"127.0.0.1:{mute.getsockname()[1]}")


def test_auto_joins_what_ray_start_began_and_nothing_that_has_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert engine._begun_with_ray_start() is None
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    with answering(LIKE_RAY) as address:
        note.write_text(address)
        assert engine._begun_with_ray_start() == address
    assert engine._begun_with_ray_start() is None


def test_a_folder_too_long_for_sockets_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "long" / ("x" * 60)))
    refused = pytest.raises(InputError, match=r"RAY_TMPDIR is at most 39 bytes long.* name a shorter folder")
    with refused, connected(ExecutionConfig(address="local"), Store(tmp_path)):
        pass
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []


ONE_GPU = ExecutionConfig(gpus_per_trial=1)
REPORTS = {
    "by hand": '{"autoscaler_report": {"active_nodes": {"node_12ab": 1}}}',
    "ray up": '{"autoscaler_report": {"active_nodes": {"ray.head.default": 1}}}',
    "no word yet": None,
}


@pytest.mark.parametrize("started", REPORTS)
def test_what_no_machine_has_is_refused_where_none_can_come(started, monkeypatch):
    node = {"NodeID": "12ab", "Alive": True, "Resources": {"CPU": 4.0}}
    gone = {"NodeID": "34cd", "Alive": False, "Resources": {"CPU": 4.0, "GPU": 1.0}}
    monkeypatch.setattr(ray, "nodes", lambda: [node, gone])
    monkeypatch.setattr(engine, "_autoscaling_status", lambda: REPORTS[started])
    said: list[str] = []
    engine._check_cluster_offers(ExecutionConfig(cpus_per_trial=4), said.append)
    assert said == []
    if started == "by hand":
        with pytest.raises(InputError, match="the 1 CPU and 1 GPU that a trial takes, and no autoscaler starts one"):
            engine._check_cluster_offers(ONE_GPU, said.append)
    else:
        engine._check_cluster_offers(ONE_GPU, said.append)
        assert said[0].startswith("no machine of the cluster has the 1 CPU and 1 GPU that a trial takes: the run ends")


@pytest.mark.slow
@pytest.mark.usefixtures("small_cluster")
def test_ray_itself_answers():
    assert engine._answers(ray.get_runtime_context().gcs_address)


class MadeUpFleet:
    """In place of a fleet: what was started and ended."""

    def __init__(self, log: list[str], cpus_per_worker: int, gpus_per_worker: float, *_: object) -> None:
        self._log, self.gpus_per_worker = log, gpus_per_worker
        self._name = f"{cpus_per_worker} CPU and {gpus_per_worker:g} GPU"
        log.append(f"started: {self._name}")

    def end(self) -> None:
        self._log.append(f"ended: {self._name}")


class MadeUpRun:
    """In place of a Tune run: what was asked of it."""

    is_over = False

    def __init__(self, log: list[str], num_workers: int) -> None:
        self._log = log
        log.append(f"{num_workers} for fits")

    def wait(self) -> list[FailedFit]:
        self._log.append("waited")
        return []

    def stop(self) -> None:
        self._log.append("stopped")

    def join(self) -> None:
        self._log.append("joined")


def use(monkeypatch: pytest.MonkeyPatch, execution: ExecutionConfig, num_fits: int) -> list[str]:
    """What an engine does for fits, attribution, fits, on machines of 8 CPUs with 2 GPUs and of 5 CPUs."""
    log: list[str] = []
    offers = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 5.0}]
    nodes = [{"NodeID": str(i), "Alive": True, "Resources": offer} for i, offer in enumerate(offers)]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"NodeID": "gone", "Alive": False, "Resources": {"CPU": 64.0}}])
    monkeypatch.setattr(engine, "Fleet", lambda *arguments: MadeUpFleet(log, *arguments))
    monkeypatch.setattr(engine, "TuneRun", lambda context, fits, on_fit, fleet, number: MadeUpRun(log, number))

    @contextmanager
    def pool(fleet: MadeUpFleet, number: int, on_progress: object) -> Iterator[None]:
        yield log.append(f"{number} for attribution")

    monkeypatch.setattr(engine, "RayPool", pool)
    with engine.RayEngine(execution) as used:
        used.begin_fits(None, [None] * num_fits, None)
        with used.pool(None):
            pass
        used.begin_fits(None, [None] * num_fits, None)
    return log


def test_workers_are_kept_over_the_stages_and_given_up_last(monkeypatch):
    monkeypatch.setattr(engine, "_autoscaling_status", lambda: None)
    assert use(monkeypatch, ExecutionConfig(cpus_per_trial=3), num_fits=50) == [
        "started: 3 CPU and 0 GPU",
        *("3 for fits", "3 for attribution", "3 for fits"),
        *("stopped", "stopped", "ended: 3 CPU and 0 GPU", "joined", "joined"),
    ]


def test_workers_of_other_gpus_give_place_when_their_fits_have_ended(monkeypatch):
    monkeypatch.setattr(engine, "_autoscaling_status", lambda: None)
    execution = ExecutionConfig(gpus_per_trial=0.25, gpus_per_worker=1)
    log = use(monkeypatch, execution, num_fits=6)
    assert log[:4] == ["started: 1 CPU and 0.25 GPU", "6 for fits", "waited", "ended: 1 CPU and 0.25 GPU"]
    assert log[4:7] == ["started: 1 CPU and 1 GPU", "2 for attribution", "waited"]
    assert log[7:10] == ["ended: 1 CPU and 1 GPU", "started: 1 CPU and 0.25 GPU", "6 for fits"]


def test_a_cluster_that_may_grow_is_asked_for_more(monkeypatch):
    monkeypatch.setattr(engine, "_autoscaling_status", lambda: REPORTS["ray up"])
    assert f"{13 + engine.MOST_ASKED_FOR} for fits" in use(monkeypatch, ExecutionConfig(), num_fits=1000)
    monkeypatch.setattr(engine, "_autoscaling_status", lambda: '{"autoscaler_report": {"active_nodes": {"node_0": 1}}}')
    assert "13 for fits" in use(monkeypatch, ExecutionConfig(), num_fits=1000)


def test_whatever_ray_raises_when_it_does_not_start_is_one_line(tmp_path, monkeypatch):
    def takes_too_long(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", takes_too_long)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # a test before this one may have begun Ray for the file
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    refused = pytest.raises(
        ConnectionError, match=r"gave up waiting for Ray to start .* timed out during startup\.; see"
    )
    with refused, connected(ExecutionConfig(address="local"), Store(tmp_path)):
        pass
