"""On a cluster that changes: a machine that joins takes work, or is refused, and what waits for a core says so."""

import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from cluster.kills import SETTINGS
from ray import cloudpickle
from ray.cluster_utils import Cluster
from small_sweep import SMALL

from d3m_ray import waiting
from d3m_ray.cluster.engine import RayEngine
from d3m_ray.cluster.situation import place_of, who_is_there
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.pool import ignore_progress
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import LocalEngine, Lost, PlannedFit
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.trials.trial import FitSpec

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # Ray's, of each node that is added
]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}
NOTHING = [PlannedFit(FitSpec(f"fit {seed}", np.arange(seed), seed), ()) for seed in range(100)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One machine of one core, with a folder of Ray's own: no other driver takes it for a cluster to join."""
    folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {**SETTINGS, "RAY_TMPDIR": folder.name}.items():
            patch.setenv(name, value)
        patch.setenv("RAY_health_check_timeout_ms", "10000")  # of a machine that is slow, and not gone
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def here() -> str:
    return str(ray.get_runtime_context().get_node_id())


@dataclass(frozen=True)
class SaysWhere:
    """In place of a context: a fit takes a while, and ends by failing with the machine that it ran on.

    Once a file says so, one of them dies.
    """

    marker: Path
    experiment: str = "where"

    @property
    def recipes(self) -> str:
        time.sleep(0.2)
        if self.marker.exists():
            self.marker.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(here())


@dataclass(frozen=True)
class HeadAlone:
    """In place of the terms: no other machine sees the store."""

    head: str

    def check(self) -> None:
        if here() != self.head:
            raise InputError("does not see the store")


def where_of(shared: None, shard: int) -> str:
    time.sleep(0.2)
    return here()


def until(is_so: Callable[[], Any], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.05)


def large(shared: int, shard: int) -> np.ndarray:
    """Too large to travel with the answer: it stays where it was made."""
    time.sleep(0.1)
    return np.full(50_000, shared + shard)


def one_more(shared: None, before: np.ndarray) -> np.ndarray:
    return before + 1


def mean_of(shared: None, values: np.ndarray) -> float:
    return float(values.mean())


def test_a_machine_that_joins_takes_fits_and_shards_and_one_that_is_lost_is_told_and_costs_none(cluster, tmp_path):
    """Also where it kept what is read later."""
    events: list[Any] = []
    lost: list[Lost] = []
    said: list[str] = []
    with RayEngine(ExecutionConfig(), said.append, on_lost=lost.append) as engine:
        pending = engine.begin_fits(SaysWhere(tmp_path / "none"), NOTHING, events.append)
        until(lambda: events)
        joined = cluster.add_node(**NODE)
        until(lambda: any(p.at and p.life.node == joined.node_id for p in engine._fleet.look().duties.values()))
        time.sleep(1)
        cluster.remove_node(joined, allow_graceful=False)
        where = {failure.error for failure in pending.wait()}
        assert where == {f"ValueError: {node}" for node in (here(), joined.node_id)}
        until(lambda: engine._fleet.look() and lost)
        assert [(each.machine, each.worker, each.num_slots) for each in lost] == [(joined.node_ip_address, None, 1)]
        assert [name.startswith("fit checkpoint k=") for name in lost[0].at] == [True]
        with engine.pool(ignore_progress) as pool:
            joined, places = cluster.add_node(**NODE), set[str]()
            until(lambda: places.update(pool.map("looking", where_of, None, range(8))) or len(places) > 1)
            assert places == {here(), joined.node_id}
            kept = pool.map_kept("keeping", large, pool.put(100), range(8))
            after = pool.map_kept("adding", one_more, None, kept)
            del kept  # what is made again is made from what nobody holds any more
            cluster.remove_node(joined, allow_graceful=False)
            assert list(pool.map("reading", mean_of, None, after)) == [101 + shard for shard in range(8)]
        until(lambda: engine._fleet.look() and len(lost) > 1)
        assert [(each.machine, each.worker) for each in lost[1:]] == [(joined.node_ip_address, None)]
    again = [line for line in said if "to be computed again" in line]
    assert [re.sub(r"^\d+ results?|\d+/8", "", line) for line in again] == [
        f" kept on a machine that is gone, to be computed again ({step}, shard )" for step in ("keeping", "adding")
    ]


def test_machines_of_three_cores_have_a_fit_of_two_cores_each(cluster, tmp_path, assert_same_results):
    joined = [cluster.add_node(**(NODE | {"num_cpus": 3})) for _ in "ab"]
    stores = [Store(tmp_path / "local"), Store(tmp_path / "ray")]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with RayEngine(ExecutionConfig(cpus_per_trial=2)) as on_ray:
        for store, engine in zip(stores, (LocalEngine(), on_ray), strict=True):
            with Progress() as progress:
                assert run_experiment(prepare(SMALL, store, progress), engine, progress).failed == []
        news = on_ray._fleet.look()
        assert (on_ray._fleet.num_slots, len(on_ray._fleet.workers)) == (2, 2)
        assert {duty.life.node for duty in news.duties.values()} <= {node.node_id for node in joined}
    torch.set_num_threads(num_threads)
    assert_same_results(*stores)
    for node in joined:
        cluster.remove_node(node)


def test_a_machine_that_joins_and_does_not_see_the_store_takes_no_fit_and_costs_no_core(cluster, tmp_path):
    said: list[str] = []
    events: list[Any] = []
    with RayEngine(ExecutionConfig(), said.append, HeadAlone(here())) as engine:
        pending = engine.begin_fits(SaysWhere(tmp_path / "dies"), NOTHING[:100], events.append)
        until(lambda: events)
        joined = cluster.add_node(**NODE)
        (tmp_path / "dies").touch()  # its worker may be made again on either machine
        failed = pending.wait()
    assert {failure.error for failure in failed} == {f"ValueError: {here()}"}
    assert len(failed) == 100
    of_the_dead = [line for line in said if line.startswith("worker 1 on machine")]
    assert len([line for line in of_the_dead if " died: the run goes on; what was" in line]) == 1
    assert [line for line in said if not line.startswith("waiting for ") and line not in of_the_dead] == [
        f"machine {joined.node_ip_address}: does not see the store: the run goes on without it"
    ]
    cluster.remove_node(joined)


def test_what_waits_for_a_core_that_others_hold_says_what_is_free_and_ends(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 1.0)
    holder = ray.remote(Holder).options(num_cpus=1).remote()
    assert ray.get(holder.where.remote()) == here()
    place = place_of(holder)
    assert place is not None
    assert place[0] == here()
    said: list[str] = []
    execution = ExecutionConfig(max_wait_seconds=3)
    with RayEngine(execution, said.append) as engine:
        waited = r"waited \d+ s .* to start a worker for the fits; 0 of 1 CPU free; each worker"
        with pytest.raises(RunError, match=waited):
            engine.begin_fits(SaysWhere(tmp_path / "none"), NOTHING[:1], lambda event: None).wait()
    assert said[0].startswith("waiting for the cluster to start a worker for the fits, ")
    assert said[0].endswith(" s so far, which is normal up to 60 s; 0 of 1 CPU free")
    ray.kill(holder)
    until(lambda: who_is_there() == "1 of 1 CPU free")


class Holder:
    """Holds a core, as another job does."""

    def where(self) -> str:
        return here()
