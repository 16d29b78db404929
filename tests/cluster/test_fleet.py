"""A fleet has a worker for each slot of the machines, those that join too, and none on one that is refused."""

from typing import Any

import pytest
import ray

from d3m_ray.cluster import fleet, machines
from d3m_ray.cluster.dispatcher import News
from d3m_ray.cluster.fleet import MOST_ASKED_FOR, Fleet, Room
from d3m_ray.errors import RunError
from d3m_ray.waiting import Patience

WATCHES = '{"autoscaler_report": {"active_nodes": {"node_0": 1, "node_gone": 1}}}'
GROWS = '{"autoscaler_report": {"active_nodes": {"ray.head.default": 1}}}'


class Remote:
    """In place of Ray's remote classes and methods: notes what it is asked for, and answers at once."""

    def __init__(self, answer: Any = None) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.selectors: list[Any] = []
        self._answer = answer

    def options(self, label_selector: Any = None, **_: object) -> "Remote":
        self._selector = label_selector
        return self

    def remote(self, *arguments: Any) -> Any:
        self.asked.append(arguments)
        self.selectors.append(self._selector)
        return self._answer


class MadeUpCluster:
    """Machines of 8 CPUs with 2 GPUs, and of 5 CPUs, and a dead one; workers and a dispatcher that are told of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: str | None = None) -> None:
        offers = [{"CPU": 8.0, "GPU": 2.0}, {"CPU": 5.0}]
        self.nodes = [self.node(str(i), offer) for i, offer in enumerate(offers)]
        self.news = News(0, frozenset(), 0, {}, "")
        self.workers = Remote()
        monkeypatch.setattr(ray, "nodes", lambda: [*self.nodes, self.node("gone", {"CPU": 64.0}, is_alive=False)])
        monkeypatch.setattr(machines, "_autoscaling_status", lambda: status)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: Context())
        monkeypatch.setattr(ray, "get", lambda handle: self.news if handle == "news" else None)
        monkeypatch.setattr(ray, "remote", lambda made: self.workers if made is fleet.Worker else Remote(Actor()))

    @staticmethod
    def node(name: str, offer: dict[str, float], is_alive: bool = True) -> dict[str, Any]:
        return {"NodeID": name, "Alive": is_alive, "Resources": offer}


class Context:
    def get_node_id(self) -> str:
        return "a" * 56


class Actor:
    """In place of a dispatcher's handle."""

    def __init__(self) -> None:
        self.add, self.news = Remote().options(), Remote("news").options()


def test_workers_are_as_many_as_the_machines_have_slots_for_or_as_work_waits_for(monkeypatch):
    cluster = MadeUpCluster(monkeypatch)
    small = Fleet(cpus_per_worker=3)
    assert (small.grow(50), small.num_slots, len(small.workers)) == (3, 3, 3)
    assert Fleet(gpus_per_worker=0.25).grow(50) == 8
    few = Fleet()
    assert [few.grow(2), few.grow(1), few.grow(4)] == [2, 1, 4]
    assert len(few.workers) == 4
    cluster.nodes.clear()
    unknown = Fleet(gpus_per_worker=64)
    assert unknown.grow(50) == 1
    assert len(unknown.workers) == MOST_ASKED_FOR, "Ray does not say whether machines may come"


def test_a_cluster_that_may_grow_is_asked_for_more(monkeypatch):
    for status, num_more in ((GROWS, MOST_ASKED_FOR), (WATCHES, 0)):
        MadeUpCluster(monkeypatch, status)
        fleet = Fleet()
        assert fleet.grow(1000) == 13, "trials wait for so many at once"
        assert len(fleet.workers) == 13 + num_more


def test_a_machine_that_joins_has_workers_while_work_waits(monkeypatch):
    cluster = MadeUpCluster(monkeypatch, WATCHES)
    cluster.nodes.pop()
    fleet = Fleet()
    fleet.grow(1000)
    cluster.nodes.append(cluster.node("new", {"CPU": 2.0}))
    cluster.news = News(num_workers=8, living=frozenset(range(8)), num_waiting=0, refusals={}, cause="")
    fleet.look()
    assert (len(fleet.workers), fleet.num_slots) == (8, 10), "nothing waits"
    cluster.news = News(num_workers=8, living=frozenset(range(8)), num_waiting=1, refusals={}, cause="")
    fleet.look()
    assert len(fleet.workers) == 9
    cluster.news = News(num_workers=9, living=frozenset(range(8)), num_waiting=99, refusals={}, cause="")
    for _ in range(3):
        fleet.look()
        cluster.news = News(num_workers=10, living=frozenset(range(8)), num_waiting=99, refusals={}, cause="")
    assert len(fleet.workers) == 10


def test_a_machine_that_is_refused_is_told_once_and_has_no_other_worker(monkeypatch):
    cluster = MadeUpCluster(monkeypatch, WATCHES)
    said: list[str] = []
    fleet = Fleet(say=said.append)
    fleet.grow(1000)
    refusals = {"1": "10.0.0.1: does not see the store"}
    both = {**refusals, "0": "10.0.0.0: no"}
    cluster.news = News(num_workers=12, living=frozenset(range(8)), num_waiting=99, refusals=refusals, cause="")
    fleet.look()
    assert said == ["machine 10.0.0.1: does not see the store: the run goes on without it"]
    assert (fleet.num_slots, len(fleet.workers)) == (8, 13)
    cluster.news = News(num_workers=7, living=frozenset(range(7)), num_waiting=99, refusals=refusals, cause="")
    fleet.look()
    assert len(said) == 1
    assert (len(fleet.workers), cluster.workers.selectors[-2:]) == (14, [None, {"ray.io/node-id": "!in(1)"}])
    cluster.news = News(num_workers=0, living=frozenset(range(0)), num_waiting=9, refusals=both, cause="")
    with pytest.raises(RunError, match=r"can take part: 10.0.0.1: does not see the store; 10.0.0.0: no$"):
        fleet.look()


def test_room_is_there_while_a_worker_lives_and_its_lack_says_who_is_there(monkeypatch):
    monkeypatch.setattr(fleet, "ROUND_SECONDS", 0.0)
    cluster = MadeUpCluster(monkeypatch, WATCHES)
    said: list[str] = []
    room = Room(Fleet(), Patience("a worker", "see to it", 0.0, said.append))
    cluster.news = News(1, frozenset({0}), 0, {}, "")
    assert room.look()
    cluster.news = News(1, frozenset(), 0, {}, "0 of 2 CPU free; other drivers: process 7 of 10.0.0.9")
    with pytest.raises(RunError, match=r"for a worker; 0 of 2 CPU free; other drivers: process 7 of 10.0.0.9; see to"):
        room.look()
