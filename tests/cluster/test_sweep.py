"""Ray Tune gives the results of this process, goes on after a failure, and after Ctrl-C or a killed driver."""

import dataclasses
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import ray
from ray import cloudpickle
from rich.console import Console

from d3m_ray import waiting
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.cluster.engine import RayEngine
from d3m_ray.cluster.scratch import PREFIX
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.errors import EngineLostError, RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.plan import make_context
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.pool import ignore_progress
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import FitEvent, LocalEngine, PendingFits, PlannedFit
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.trials.trial import FitSpec, plan_trial

pytestmark = pytest.mark.slow
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests
ROOT = Path(__file__).resolve().parents[2]
SMALL = ExperimentConfig(
    corpus=Planted(num_train=160, num_val=40, num_test=40),
    model="tiny",
    num_removed=(0, 10),
    seeds=(0, 1),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=TrakConfig(projection_dim=64),
    execution=ExecutionConfig(num_workers=2),
)


@pytest.mark.usefixtures("small_cluster")
def test_ray_and_this_process_give_equal_results(tmp_path, assert_same_results):
    stores = [Store(tmp_path / "local"), Store(tmp_path / "ray")]
    with RayEngine(SMALL.execution) as on_ray:
        for store, engine in zip(stores, (LocalEngine(), on_ray), strict=True):
            with Progress() as progress:
                assert run_experiment(prepare(SMALL, store, progress), engine, progress).failed == []
    assert_same_results(*stores)


class LosesItsDispatcher(RayEngine):
    """Has it killed when the first fits have begun, and again when attribution has its first workers."""

    left_to_kill = ("fits", "pool")

    def begin_fits(self, *asked):
        pending = super().begin_fits(*asked)
        self._lose("fits")
        return pending

    @contextmanager
    def pool(self, on_progress):
        with super().pool(on_progress) as pool:
            self._lose("pool")
            yield pool

    def _lose(self, when: str) -> None:
        if when in self.left_to_kill:
            self.left_to_kill = tuple(other for other in self.left_to_kill if other != when)
            ray.kill(self._fleet.dispatcher)


@pytest.mark.usefixtures("small_cluster")
def test_a_run_that_loses_its_dispatcher_goes_on_by_itself(tmp_path, assert_same_results):
    stores = [Store(tmp_path / "local"), Store(tmp_path / "ray")]
    with LosesItsDispatcher(SMALL.execution) as on_ray:
        for store, engine in zip(stores, (LocalEngine(), on_ray), strict=True):
            with Progress(Console(file=io.StringIO(), width=1000)) as progress:
                assert run_experiment(prepare(SMALL, store, progress), engine, progress).failed == []
                assert progress.fits_line().startswith("fits: ")
                said = progress.console.file.getvalue()
    assert said.count("warning: what hands out the work has died (Actor") == 2
    assert on_ray.left_to_kill == ()
    assert stores[1].keys("failures") == set()
    assert_same_results(*stores)


@pytest.mark.usefixtures("small_cluster")
def test_a_fit_is_tried_again_only_where_that_may_help_while_others_go_on(tmp_path):
    """The first has nothing to train on, and would never have; the second finds no room in the store."""
    store = Store(tmp_path)
    context = make_context(SMALL, load_splits(SMALL.corpus), store)
    everything = np.arange(160)
    trials = [
        plan_trial(context, "random", removed, seed=0)
        for removed in (everything, everything[:20], everything[:10], everything[:0])
    ]
    (tmp_path / "fits" / f"{trials[1].fit.fit_key}.parquet").mkdir(parents=True)
    events: list[FitEvent] = []
    planned = [PlannedFit(trial.fit, (trial,)) for trial in trials]
    with RayEngine(SMALL.execution) as engine:
        failed = engine.begin_fits(context, planned, events.append).wait()
    assert [failure.fit_key for failure in failed] == [trial.fit.fit_key for trial in trials[:2]]
    assert failed[0].error.startswith("ValueError: fine-tuning takes at least one train example")
    assert failed[1].error.startswith(("IsADirectoryError: ", "StoreError: "))
    assert store.keys("trials") == {trial.trial_key for trial in trials[2:]}
    assert store.keys("failures") == {trial.trial_key for trial in trials[:2]}
    failures = store.read_all("failures").set_index("trial_key")
    assert "fine_tune" in failures.loc[trials[0].trial_key, "traceback"]
    assert [event.state for event in events].count("retried") == 2, "the second fit, twice"
    assert [event.state for event in events].count("failed") == 2
    assert all(event.val_wga is not None for event in events if event.state == "done")
    assert [event.state for event in events if event.seconds is not None].count("done") == 2
    assert [event.state for event in events if event.seconds is not None].count("failed") == 1, "the first alone ended"


@dataclass(frozen=True)
class SaysWhere:
    """In place of a context: a fit ends by saying which process it ran in, and the first of all dies."""

    marker: Path
    experiment: str = "where"

    @property
    def recipes(self) -> str:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError(os.getpid())


@pytest.mark.usefixtures("small_cluster")
def test_workers_are_kept_from_stage_to_stage_and_one_that_dies_is_replaced(tmp_path):
    fits = [PlannedFit(FitSpec(f"fit {seed}", np.arange(seed), seed), ()) for seed in range(6)]
    events: list[str] = []
    with RayEngine(SMALL.execution) as engine:
        stages = [
            engine.begin_fits(SaysWhere(tmp_path / "died"), fits, lambda event: events.append(event.state)).wait()
            for _ in "ab"
        ]
    assert [[failure.fit_key for failure in failed] for failed in stages] == [[fit.fit.fit_key for fit in fits]] * 2
    first, second = ({failure.error for failure in failed} for failed in stages)
    assert all(re.fullmatch(r"ValueError: \d+", error) for error in first | second)
    assert first & second, "the same processes"
    assert len(first | second) <= 3, "two, and the one in place of the dead one"
    assert (events.count("retried"), events.count("failed")) == (1, 12)


class EndsInItsOwnWay(dict[str, object]):
    """In place of recipes: one takes all memory, so that the system ends its process, one diverges, others end."""

    def __missing__(self, name: str) -> object:
        if name == "too large":
            os.kill(os.getpid(), signal.SIGKILL)
        raise FloatingPointError("not finite") if name == "diverges" else ValueError("ended")


@pytest.mark.usefixtures("small_cluster")
def test_a_fit_that_takes_all_memory_each_time_is_told_while_others_go_on():
    names = ("too large", "diverges", *("erm" for _ in range(4)))
    fits = [PlannedFit(FitSpec(name, np.arange(3), seed, recipe=name), ()) for seed, name in enumerate(names)]
    context = SimpleNamespace(experiment="memory", recipes=EndsInItsOwnWay())
    events: list[str] = []
    with RayEngine(SMALL.execution) as engine:
        failed = engine.begin_fits(context, fits, lambda event: events.append(event.state)).wait()
    errors = dict(sorted((failure.fit_key, failure.error) for failure in failed))
    assert errors.pop("too large").startswith(("ActorUnavailableError: ", "ActorDiedError: "))
    assert errors == {"diverges": "FloatingPointError: not finite", "erm": "ValueError: ended"}
    assert len(failed) == 6
    assert events.count("retried") >= 2


@dataclass(frozen=True)
class Naps:
    """In place of a context: a fit sleeps, and ends by failing."""

    seconds: float
    experiment: str = "naps"

    @property
    def recipes(self) -> str:
        time.sleep(self.seconds)
        raise ValueError("slept")


def naps(number: int, first: int = 0) -> list[PlannedFit]:
    return [PlannedFit(FitSpec(f"fit {seed}", np.arange(seed), seed), ()) for seed in range(first, first + number)]


def die_once(shared: Path, shard: int) -> int:
    marker = shared / "died"
    if shard == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * shard


@pytest.mark.usefixtures("small_cluster")
def test_attribution_takes_workers_from_fits_and_gives_them_back_also_one_that_died(tmp_path):
    events: list[str] = []
    with RayEngine(SMALL.execution) as engine:
        first = engine.begin_fits(Naps(0.3), naps(10), lambda event: events.append(event.state))
        then = engine.begin_fits(Naps(0.3), naps(2, first=10), lambda event: events.append(event.state))
        while "failed" not in events:
            time.sleep(0.05)
        with engine.pool(ignore_progress) as pool:
            assert list(pool.map("dying", die_once, tmp_path, range(5))) == [0, 10, 20, 30, 40]
            num_ended = events.count("failed")
        assert [failure.error for failure in first.wait() + then.wait()] == ["ValueError: slept"] * 12
        assert first.wait() == first.wait(), "asked again, it answers the same"
    assert (tmp_path / "died").exists()
    assert 0 < num_ended < 10, "no fit is begun while attribution waits for a worker"
    assert (events.count("started"), events.count("failed")) == (12, 12)


@pytest.mark.usefixtures("small_cluster")
def test_what_ends_the_driver_ends_every_set():
    def stopped() -> None:
        with RayEngine(SMALL.execution) as engine:
            for first in (0, 4):
                sets.append(engine.begin_fits(Naps(100.0), naps(4, first), lambda event: None))
            raise KeyboardInterrupt

    sets: list[PendingFits] = []
    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("fits ")]
    for pending in sets:
        with pytest.raises(RunError):
            pending.wait()


@pytest.mark.usefixtures("small_cluster")
def test_a_store_that_is_gone_ends_every_set_and_attribution_at_once(tmp_path):
    store = Store(tmp_path / "store")
    store.write_experiment("one", {"dataset": "planted", "model": "tiny"}, [])
    context = make_context(SMALL, load_splits(SMALL.corpus), store)
    trial = plan_trial(context, "random", np.arange(10), seed=0)
    shutil.rmtree(tmp_path / "store")
    events: list[str] = []
    with RayEngine(SMALL.execution) as engine:
        first = engine.begin_fits(context, [PlannedFit(trial.fit, (trial,))], lambda event: events.append(event.state))
        then = engine.begin_fits(Naps(100.0), naps(4), lambda event: None)
        for wait in (first.wait, then.wait, engine.pool(ignore_progress).__enter__):
            with pytest.raises(StoreError, match=rf"the store {store} has gone since it was begun"):
                wait()
    assert events == ["started", "retried"], "and not tried again"
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("small_cluster")
def test_without_a_dispatcher_nothing_waits_for_ever():
    with RayEngine(SMALL.execution) as engine:
        sets = [engine.begin_fits(Naps(100.0), naps(4, first), lambda event: None) for first in (0, 4)]
        ray.kill(engine._fleet.dispatcher)
        for pending in sets:
            with pytest.raises(EngineLostError, match=r"has died \(Actor.*\): the same command goes on"):
                pending.wait()
        engine.renew()
        assert len(engine.begin_fits(Naps(0.0), naps(3), lambda event: None).wait()) == 3


@pytest.mark.usefixtures("small_cluster")
def test_fits_that_find_no_room_are_not_waited_for_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 1.0)
    execution = dataclasses.replace(SMALL.execution, gpus_per_trial=1, max_wait_seconds=2)
    context = make_context(SMALL, load_splits(SMALL.corpus), Store(tmp_path))
    trial = plan_trial(context, "random", np.arange(10), seed=0)
    said: list[str] = []
    waited = pytest.raises(RunError, match=r"waited \d+ s .* for the cluster to start a worker for the fits")
    with waited, RayEngine(execution, said.append) as engine:
        engine.begin_fits(context, [PlannedFit(trial.fit, (trial,))], lambda event: None).wait()
    assert re.match(
        r"waiting for the cluster to start a worker for the fits, \d+ s so far, which is normal up to 60 s", said[0]
    )


def _start(store: Path, start_new_session: bool = False) -> subprocess.Popen:
    flags = "--num-train 160 --num-val 40 --num-test 40 --num-epochs 1 --projection-dim 64 --methods trak random"
    grid = "--num-removed 0 5 10 --seeds 0 1 --num-workers 1 --address local"
    command = [sys.executable, "sweeps/demo.py", "--store", str(store), *flags.split(), *grid.split()]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=start_new_session,
    )


def test_a_stopped_driver_goes_on_from_the_store(tmp_path, assert_same_results):
    """One that is killed does, too: see `kills.py`."""
    store = Store(tmp_path / "stopped")
    driver = _start(tmp_path / "stopped")
    deadline = time.monotonic() + 300
    while not store.keys("fits") and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(driver.pid, signal.SIGTERM)
    output, _ = driver.communicate(timeout=120)
    done = {key: (tmp_path / "stopped" / "fits" / f"{key}.parquet").stat().st_mtime_ns for key in store.keys("fits")}
    assert 1 <= len(done) < 10, output
    assert driver.returncode == 143, output
    assert "the same command goes on" in output

    again = _start(tmp_path / "stopped")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    for key, modified in done.items():
        assert (tmp_path / "stopped" / "fits" / f"{key}.parquet").stat().st_mtime_ns == modified, "trained again"

    config = dataclasses.replace(SMALL, num_removed=(0, 5, 10))
    undisturbed = Store(tmp_path / "undisturbed")
    with Progress() as progress:
        run_experiment(prepare(config, undisturbed, progress), LocalEngine(), progress)
    assert_same_results(store, undisturbed)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_run_leaves_none_of_them_and_no_folder(stop, tmp_path, monkeypatch):
    """As Ctrl-C in a terminal does, or a terminal that closes."""
    monkeypatch.setenv("RAY_TMPDIR", os.environ.get("RAY_TMPDIR", tempfile.gettempdir()))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    store = Store(tmp_path / "stopped")
    driver = _start(tmp_path / "stopped", start_new_session=True)
    deadline = time.monotonic() + 300
    while not store.keys("trials") and time.monotonic() < deadline:
        time.sleep(0.05)
    begun = psutil.Process(driver.pid).children(recursive=True)
    assert list(tmp_path.glob(f"{PREFIX}*"))
    os.killpg(driver.pid, stop)
    output, _ = driver.communicate(timeout=120)
    assert driver.returncode == 128 + stop, output
    assert output.endswith("what was done is stored, the same command goes on from there\n")
    _, alive = psutil.wait_procs(begun, timeout=30)
    assert alive == []
    assert list(tmp_path.glob(f"{PREFIX}*")) == []
