"""The machines of a cluster: what none offers is refused where none can come, and each must see the store."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayTaskError, TaskUnschedulableError

from d3m_ray.cluster import machines
from d3m_ray.errors import InputError
from d3m_ray.store.provenance import software
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import ExecutionConfig

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
    monkeypatch.setattr(machines, "_autoscaling_status", lambda: REPORTS[started])
    said: list[str] = []
    machines.check_cluster_offers(ExecutionConfig(cpus_per_trial=4), said.append)
    assert said == []
    if started == "by hand":
        with pytest.raises(
            InputError, match="the 1 CPU and 1 GPU that a worker that trains takes, and no autoscaler starts one"
        ):
            machines.check_cluster_offers(ONE_GPU, said.append)
    else:
        machines.check_cluster_offers(ONE_GPU, said.append)
        assert said[0].startswith("no machine of the cluster has the 1 CPU and 1 GPU that a worker that trains takes: ")


class MadeUpTask:
    """In place of a remote function: each machine's answer is what it is told to be, or what it computes itself."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = answers

    def options(self, **_: object) -> "MadeUpTask":
        return self

    def remote(self, store: Store, probe: str) -> Any:
        answer = self._answers.pop(0)
        return machines._look(answer, probe) if isinstance(answer, Store) else answer


def asked(monkeypatch: pytest.MonkeyPatch, store: Store, answers: list[Any], num_left: int = 9) -> list[str]:
    """What is said when as many machines answer so; of them `num_left` are part of the cluster afterwards."""
    ids = [f"{number + 1:056x}" for number in range(len(answers))]
    nodes = [{"NodeID": node, "NodeManagerAddress": f"10.0.0.{i}", "Alive": True} for i, node in enumerate(ids)]
    said: list[str] = []

    def read(answer: Any, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(_: object, **__: object) -> None:
        del nodes[num_left:]

    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "remote", lambda function: MadeUpTask(answers))
    monkeypatch.setattr(ray, "wait", wait)
    monkeypatch.setattr(ray, "get", read)
    with machines.every_machine_checked(store, said.append) as terms:
        terms.check()
    return said


def test_machines_that_share_the_store_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "shared")
    other = pickle.loads(pickle.dumps(store))  # as another machine gets it
    assert asked(monkeypatch, store, [store, other]) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_empty_folder_of_one_machine_is_not_taken_for_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, own = Store(tmp_path / "here"), Store(tmp_path / "there")
    refused = pytest.raises(InputError, match=r"reads and writes the store; 10.0.0.1: does not see .*there: name a")
    with refused:
        asked(monkeypatch, store, [store, own])


def test_a_machine_that_cannot_write_the_store_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "here")
    answer = software() | {"lacks": "the store cannot be written (read-only file system)"}
    with pytest.raises(InputError, match=r"; 10.0.0.1: the store cannot be written \(read-only file system\): name a"):
        asked(monkeypatch, store, [store, answer])


def test_another_version_is_refused_and_other_libraries_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, here = Store(tmp_path / "here"), software() | {"lacks": ""}
    with pytest.raises(InputError, match=r"10.0.0.0: has version 0.0.9 of this package and not .*: install the same"):
        asked(monkeypatch, store, [here | {"package_version": "0.0.9"}])
    libraries = {**software()["library_versions"], "torch": "1.0"}
    said = asked(monkeypatch, store, [here | {"library_versions": libraries}])
    assert len(said) == 1
    assert said[0].startswith("machine 10.0.0.0 has torch 1.0 where this one has")


NO_PACKAGE = RayTaskError("look", "trace", ModuleNotFoundError("No module named 'd3m_ray'"))


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (
            NO_PACKAGE,
            InputError,
            r"10.0.0.0 does not run it \(ModuleNotFoundError: No module named .*\): install",
        ),
        (GetTimeoutError(), ConnectionError, r"answers within 60 s; 10.0.0.0 does not: end Ray there"),
    ],
)
def test_a_machine_that_cannot_take_part_is_one_line(
    error: Exception, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(kind, match=message):
        asked(monkeypatch, Store(tmp_path), [error])


def test_a_machine_that_dies_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    said = asked(monkeypatch, store, [store, TaskUnschedulableError("it is gone")], num_left=1)
    assert said == ["machine 10.0.0.1 has left the cluster: the run goes on without it"]
