"""The engine on a cluster: its workers are kept over the stages, and what cannot be met is refused, not waited for."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import ray

from d3m_ray.cluster import engine
from d3m_ray.cluster.engine import connected
from d3m_ray.cluster.fleet import RayGoneError
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

    def __init__(self, log: list[str], num_fits: int) -> None:
        self._log = log
        log.append(f"{num_fits} fits")

    def wait(self) -> list[FailedFit]:
        self._log.append("waited")
        return []

    def stop(self) -> None:
        self._log.append("stopped")

    def join(self, seconds: float) -> None:
        self._log.append("joined")


def use(monkeypatch: pytest.MonkeyPatch, execution: ExecutionConfig, num_fits: int) -> list[str]:
    """What an engine does for fits, attribution, fits."""
    log: list[str] = []
    monkeypatch.setattr(engine, "Fleet", lambda *arguments: MadeUpFleet(log, *arguments))
    monkeypatch.setattr(engine, "TuneRun", lambda context, fits, on_fit, fleet: MadeUpRun(log, len(fits)))

    @contextmanager
    def pool(fleet: MadeUpFleet, max_workers: int | None, on_progress: object) -> Iterator[None]:
        yield log.append(f"attribution on {max_workers or 'all'}")

    monkeypatch.setattr(engine, "RayPool", pool)
    with engine.RayEngine(execution) as used:
        used.begin_fits(None, [None] * num_fits, None)
        with used.pool(None):
            pass
        used.begin_fits(None, [None] * num_fits, None)
    return log


def test_workers_are_kept_over_the_stages_and_given_up_last(monkeypatch):
    assert use(monkeypatch, ExecutionConfig(cpus_per_trial=3), num_fits=50) == [
        "started: 3 CPU and 0 GPU",
        *("50 fits", "attribution on all", "50 fits"),
        *("stopped", "stopped", "ended: 3 CPU and 0 GPU", "joined", "joined"),
    ]


def test_of_a_ray_that_is_gone_nothing_is_asked(monkeypatch):
    """As soon as it knows that its machine is gone, Ray ends the process: what is to be said is said before."""
    log: list[str] = []
    monkeypatch.setattr(engine, "Fleet", lambda *arguments: MadeUpFleet(log, *arguments))
    monkeypatch.setattr(engine, "TuneRun", lambda context, fits, on_fit, fleet: MadeUpRun(log, len(fits)))
    used = engine.RayEngine(ExecutionConfig())
    used.begin_fits(None, [None], None)
    used.__exit__(RayGoneError)
    assert log == ["started: 1 CPU and 0 GPU", "1 fits", "stopped", "joined"]


def test_workers_of_other_gpus_give_place_when_their_fits_have_ended(monkeypatch):
    execution = ExecutionConfig(gpus_per_trial=0.25, gpus_per_worker=1, num_workers=2)
    log = use(monkeypatch, execution, num_fits=6)
    assert log[:4] == ["started: 1 CPU and 0.25 GPU", "6 fits", "waited", "ended: 1 CPU and 0.25 GPU"]
    assert log[4:7] == ["started: 1 CPU and 1 GPU", "attribution on 2", "waited"]
    assert log[7:10] == ["ended: 1 CPU and 1 GPU", "started: 1 CPU and 0.25 GPU", "6 fits"]
