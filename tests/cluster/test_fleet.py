"""A fleet has a worker for each slot of the machines, those that join too, and none on one that is refused."""

import socket
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, GetTimeoutError

from d3m_ray.cluster import fleet, machines
from d3m_ray.cluster.fleet import MOST_ASKED_FOR, Fleet, RayGoneError, Room
from d3m_ray.cluster.news import Death, Duty, Life, News
from d3m_ray.errors import EngineLostError, RunError
from d3m_ray.store.errors import UnusableError
from d3m_ray.trials.engine import Lost
from d3m_ray.waiting import Patience

WATCHES = '{"autoscaler_report": {"active_nodes": {"node_0": 1, "node_gone": 1}}}'
GROWS = '{"autoscaler_report": {"active_nodes": {"ray.head.default": 1}}}'


def told(
    num_workers: int, living: frozenset[int], num_waiting: int, refusals: Any = (), cause: str = "", **more: Any
) -> News:
    """News of nothing else, but for what is given."""
    of_duties = {"duties": {}, "deaths": (), **more}
    return News(num_workers, living, num_waiting, dict(refusals), cause, **of_duties)


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
        self.news = told(0, frozenset(), 0)
        self.workers = Remote()
        monkeypatch.setattr(ray, "nodes", lambda: [*self.nodes, self.node("gone", {"CPU": 64.0}, is_alive=False)])
        monkeypatch.setattr(machines, "_autoscaling_status", lambda: status)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: Context())
        monkeypatch.setattr(ray, "get", lambda handle, timeout: self.news if handle == "news" else None)
        monkeypatch.setattr(fleet, "own_ray", lambda: None)
        monkeypatch.setattr(ray, "kill", lambda actor: None)
        monkeypatch.setattr(ray, "remote", lambda made: self.workers if made is fleet.Worker else Remote(Actor()))

    @staticmethod
    def node(name: str, offer: dict[str, float], is_alive: bool = True) -> dict[str, Any]:
        return {"NodeID": name, "NodeManagerAddress": f"10.0.0.{name}", "Alive": is_alive, "Resources": offer}


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
    cluster.news = told(8, frozenset(range(8)), 0, {})
    fleet.look()
    assert (len(fleet.workers), fleet.num_slots) == (8, 10), "nothing waits"
    cluster.news = told(8, frozenset(range(8)), 1, {})
    fleet.look()
    assert len(fleet.workers) == 9
    cluster.news = told(9, frozenset(range(8)), 99, {})
    for _ in range(3):
        fleet.look()
        cluster.news = told(10, frozenset(range(8)), 99, {})
    assert len(fleet.workers) == 10


def test_a_machine_that_is_refused_is_told_once_and_has_no_other_worker(monkeypatch):
    cluster = MadeUpCluster(monkeypatch, WATCHES)
    said: list[str] = []
    fleet = Fleet(say=said.append)
    fleet.grow(1000)
    refusals = {"1": "10.0.0.1: does not see the store"}
    both = {**refusals, "0": "10.0.0.0: no"}
    cluster.news = told(12, frozenset(range(8)), 99, refusals)
    fleet.look()
    assert said == ["machine 10.0.0.1: does not see the store: the run goes on without it"]
    assert (fleet.num_slots, len(fleet.workers)) == (8, 13)
    cluster.news = told(7, frozenset(range(7)), 99, refusals)
    fleet.look()
    assert len(said) == 1
    assert (len(fleet.workers), cluster.workers.selectors[-2:]) == (14, [None, {"ray.io/node-id": "!in(1)"}])
    cluster.news = told(0, frozenset(range(0)), 9, both)
    with pytest.raises(RunError, match=r"can take part: 10.0.0.1: does not see the store; 10.0.0.0: no$"):
        fleet.look()


def test_a_machine_that_is_gone_and_a_worker_that_died_are_told_once_with_what_they_were_at(monkeypatch):
    cluster = MadeUpCluster(monkeypatch, WATCHES)
    lost: list[Lost] = []
    fleet = Fleet(on_lost=lost.append)
    fleet.grow(1000)
    names = ("fit trak k=60 seed=2", "fit random k=5 seed=0")
    duties = {number: Duty(Life(str(number), str(number), f"10.0.0.{number}"), at) for number, at in enumerate(names)}
    deaths = tuple(Death(number, duty) for number, duty in duties.items())
    cluster.news = told(13, frozenset(range(13)), 0, duties=duties, deaths=deaths)
    fleet.look()
    assert lost == [], "the whole machine may be gone"
    cluster.nodes.pop()
    again = {**duties, 0: Duty(Life("another", "0", "10.0.0.0"))}
    cluster.news = told(13, frozenset(range(8)), 0, duties=again, deaths=deaths)
    for _ in "ab":
        fleet.look()
    assert [(each.machine, each.worker, each.at) for each in lost] == [
        ("10.0.0.1", None, names[1:]),
        ("10.0.0.0", "worker 1", names[:1]),
    ]
    assert str(lost[0]) == (
        "machine 10.0.0.1 has left the cluster: the run goes on; 8 slots left; what was under way there is begun "
        "again: fit random k=5 seed=0"
    )
    cluster.news = told(13, frozenset(), 0, duties=again, deaths=(*deaths, Death(0, again[0], "no memory")))
    fleet.look()
    fleet.end()
    assert str(lost[2]) == "worker 1 on machine 10.0.0.0 died (no memory): the run goes on"
    assert len(lost) == 3


@pytest.mark.parametrize("is_own_machine", [True, False])
def test_without_a_dispatcher_a_run_ends_and_says_whether_its_own_machine_is_gone(is_own_machine, monkeypatch):
    MadeUpCluster(monkeypatch)
    fleet = Fleet()
    errors = [GetTimeoutError(), ActorDiedError()]  # it was asked again until Ray knew

    def is_dead(handle: object, timeout: float) -> None:
        if is_own_machine:
            listener.close()
        raise errors.pop(0)

    monkeypatch.setattr(ray, "get", is_dead)
    listener = socket.create_server(("127.0.0.1", 0))
    fleet._own_ray = listener.getsockname()
    kind, why = (
        (RayGoneError, "the Ray of 127.0.0.1 has ended, to which this run was")
        if is_own_machine
        else (EngineLostError, "what hands out the work has died")
    )
    with pytest.raises(kind, match=rf"^{why} .*: the same command goes on with what is not stored$"):
        fleet.look()
    assert len(errors) == is_own_machine, "it did not wait for Ray to know, which ends the process"
    listener.close()


def test_what_was_given_up_ends_whatever_looks(monkeypatch):
    MadeUpCluster(monkeypatch)
    fleet = Fleet()
    fleet.given_up = UnusableError("the store is full", True)
    with pytest.raises(UnusableError, match="the store is full"):
        fleet.look()


def test_room_is_there_while_a_worker_lives_and_its_lack_says_who_is_there(monkeypatch):
    monkeypatch.setattr(fleet, "ROUND_SECONDS", 0.0)
    cluster = MadeUpCluster(monkeypatch, WATCHES)
    said: list[str] = []
    room = Room(Fleet(), Patience("a worker", "see to it", 0.0, said.append))
    cluster.news = told(1, frozenset({0}), 0)
    assert room.look()
    cluster.news = told(1, frozenset(), 0, cause="0 of 2 CPU free; other drivers: process 7 of 10.0.0.9")
    with pytest.raises(RunError, match=r"for a worker; 0 of 2 CPU free; other drivers: process 7 of 10.0.0.9; see to"):
        room.look()
