"""Kills processes of sweeps at random moments, and holds what is stored in the end against an undisturbed run.

`python tests/cluster/kills.py --num-kills 200` prints what it came to; `test_kills.py` does a dozen.
"""

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import pandas as pd
import psutil
from ray.cluster_utils import Cluster

from d3m_ray.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {  # read where Ray's processes start: a node that died is missed within seconds
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "6",
}
FLAGS = "--num-train 160 --num-val 40 --num-test 40 --num-epochs 2 --projection-dim 64"
SWEEP = f"sweeps/demo.py {FLAGS} --methods trak random --num-removed 0 5 10 --seeds 0 1"
TABLES = ("trials", "fits", "removals", "alignments", "scores", "examples")
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100_000_000}
FIRST_SECONDS, BETWEEN_SECONDS = (2.0, 20.0), (0.5, 8.0)  # before the first kill of a sweep, and between two
KINDS = ("worker", "worker", "trial", "dispatcher", "node", "driver")  # what is killed, as often as it stands here
HANG_SECONDS = 240.0  # without a kill: a driver that has not ended by then hangs
MAX_STARTS = 30  # of one sweep's driver


@dataclass
class Told:
    """What was killed, and what it came to."""

    killed: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    """Of the drivers that ended by themselves."""
    recovery_seconds: dict[str, list[float]] = field(default_factory=dict)
    """From a kill until a process that was not there before was at a fit or a shard."""
    num_sweeps: int = 0
    num_lost: int = 0
    num_doubled: int = 0
    num_different: int = 0
    num_hangs: int = 0

    @property
    def num_wrong(self) -> int:
        """Of rows and drivers."""
        return self.num_lost + self.num_doubled + self.num_different + self.num_hangs

    def __str__(self) -> str:
        seconds = (f"{kind} {median(of):.1f} ({max(of):.1f} at most)" for kind, of in self.recovery_seconds.items())
        return (
            f"{sum(self.killed.values())} kills {dict(self.killed)} in {self.num_sweeps} sweeps; rows lost "
            f"{self.num_lost}, doubled {self.num_doubled}, different {self.num_different}; hangs {self.num_hangs}; "
            f"drivers ended with {dict(self.statuses)}; seconds until a new process was at work: {', '.join(seconds)}"
        )


class Disturbed:
    """Sweeps on a cluster of two nodes, of a core each, in processes below this one."""

    def __init__(self, cluster: Cluster, rng: random.Random, told: Told, between_seconds: tuple[float, float]) -> None:
        self._cluster, self._rng, self._told, self._between_seconds = cluster, rng, told, between_seconds
        self._recovering: tuple[str, float, set[int]] | None = None  # kind, time, and the processes of that moment

    def sweep(self, store: Path, num_kills: int) -> int:
        """Run a sweep until it ends with status 0, kill so many processes on the way; how many there was time for."""
        driver, num_starts, num_killed = self._start(store), 1, 0
        next_kill = time.monotonic() + self._rng.uniform(*FIRST_SECONDS)
        told_alive = time.monotonic()
        while (status := driver.poll()) != 0:
            now = time.monotonic()
            if status is not None or now - told_alive > HANG_SECONDS:
                if status is None:
                    self._told.num_hangs += 1
                    driver.kill()
                    driver.wait()
                elif status > 0:
                    self._told.statuses[status] += 1
                num_starts += 1
                assert num_starts <= MAX_STARTS, f"{store}: it does not end"
                driver, told_alive = self._start(store), now
            elif num_killed < num_kills and now >= next_kill and self._kill(driver):
                num_killed += 1
                told_alive = now
                next_kill = time.monotonic() + self._rng.uniform(*self._between_seconds)
            self._look()
            time.sleep(0.05)
        self._told.statuses[0] += 1
        self._told.num_sweeps += 1
        self._recovering = None
        return num_killed

    def sweep_twice_at_once(self, store: Path) -> None:
        """Run the same sweep from two drivers, on one store: the second waits for the first one's cores."""
        drivers = [self._start(store) for _ in range(2)]
        for driver in drivers:
            try:
                self._told.statuses[driver.wait(2 * HANG_SECONDS)] += 1
            except subprocess.TimeoutExpired:
                self._told.num_hangs += 1
                driver.kill()
                driver.wait()
        self._told.num_sweeps += 1

    def _start(self, store: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, *SWEEP.split(), "--store", str(store), "--address", self._cluster.address]
        with (store.parent / f"{store.name}.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def _kill(self, driver: subprocess.Popen[bytes]) -> bool:
        """Kill one process of a random kind; False where none of it is there now."""
        kind = self._rng.choice(KINDS)
        before = set(_actors())
        if not before:
            return False  # nothing is under way
        if kind == "driver":
            driver.kill()
            driver.wait()
        elif kind == "node":
            self._cluster.remove_node(self._cluster.worker_nodes.copy().pop(), allow_graceful=False)
            self._cluster.add_node(**NODE)
        else:
            found = sorted(pid for pid, what in _actors().items() if what == kind)
            if not found:
                return False
            psutil.Process(self._rng.choice(found)).kill()
        self._told.killed[kind] += 1
        if kind in ("worker", "node", "driver"):
            self._recovering = kind, time.monotonic(), before
        return True

    def _look(self) -> None:
        """Note the seconds until a new process is at work."""
        if self._recovering is None:
            return
        kind, since, before = self._recovering
        if any(what == "worker" and pid not in before and _is_at_work(pid) for pid, what in _actors().items()):
            self._told.recovery_seconds.setdefault(kind, []).append(time.monotonic() - since)
            self._recovering = None


def _actors() -> dict[int, str]:
    """What each actor below this process is, by pid: worker, trial or dispatcher."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        try:
            title = process.cmdline()[0]
            if title.startswith("ray::") and not title.startswith(("ray::IDLE", "ray::Dashboard", "ray::RuntimeEnv")):
                loads_torch = "libtorch" in Path(f"/proc/{process.pid}/maps").read_text(encoding="utf-8")
                of_dispatcher = title.startswith("ray::Dispatcher")
                found[process.pid] = "dispatcher" if of_dispatcher else "worker" if loads_torch else "trial"
        except (psutil.Error, OSError, IndexError):  # it ended meanwhile
            continue
    return found


def _is_at_work(pid: int) -> bool:
    try:
        return psutil.Process(pid).cmdline()[0].startswith(("ray::fit", "ray::trak"))
    except (psutil.Error, IndexError):
        return False


def compare(store: Store, undisturbed: Store, told: Told) -> None:
    """Count the rows that were lost, doubled or are different."""
    for table in TABLES:
        expected, found = _rows(undisturbed, table), _rows(store, table)
        told.num_doubled += sum(max(0, count - expected[row]) for row, count in found.items() if row in expected)
        foreign = sum(count for row, count in found.items() if row not in expected)
        told.num_different += foreign
        told.num_lost += max(0, sum((expected - found).values()) - foreign)


def _rows(store: Store, table: str) -> Counter[tuple[object, ...]]:
    frame: pd.DataFrame = store.read_all(table).drop(columns=["created_at", "train_seconds"], errors="ignore")
    return Counter(frame.astype(object).where(frame.notna(), None).itertuples(index=False, name=None))  # nan is not nan


@contextmanager
def cluster_of_two() -> Iterator[Cluster]:
    """A head and one more node."""
    # A folder of Ray's own, so that no other driver on this machine takes its cluster for one to join.
    folder = tempfile.TemporaryDirectory(prefix="kills-", ignore_cleanup_errors=True)
    with folder, mock.patch.dict(os.environ, {**SETTINGS, "RAY_TMPDIR": folder.name}):
        cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
        try:
            cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()


def run(
    folder: Path,
    num_kills: int,
    kills_per_sweep: int,
    seed: int,
    max_seconds: float = math.inf,
    between_seconds: tuple[float, float] = BETWEEN_SECONDS,
) -> Told:
    """Count what comes of a sweep from two drivers at once, then of sweeps until so many processes were killed.

    None is begun after `max_seconds`.
    """
    end = time.monotonic() + max_seconds
    undisturbed, told = folder / "undisturbed", Told()
    command = [sys.executable, *SWEEP.split(), "--store", str(undisturbed), "--engine", "local"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with cluster_of_two() as cluster:
        disturbed = Disturbed(cluster, random.Random(seed), told, between_seconds)
        disturbed.sweep_twice_at_once(folder / "twice")
        compare(Store(folder / "twice"), Store(undisturbed), told)
        while (num_left := num_kills - sum(told.killed.values())) > 0 and time.monotonic() < end:
            store = folder / f"sweep-{told.num_sweeps}"
            disturbed.sweep(store, min(num_left, kills_per_sweep))
            compare(Store(store), Store(undisturbed), told)
            sys.stderr.write(f"{told}\n")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-kills", type=int, default=200)
    parser.add_argument("--kills-per-sweep", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-seconds", type=float, default=math.inf)
    parser.add_argument("--folder", type=Path, help="of stores and logs, which are then kept")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="d3m_ray_kills_") as folder:
        told = run(given.folder or Path(folder), given.num_kills, given.kills_per_sweep, given.seed, given.max_seconds)
    sys.exit(bool(told.num_wrong))


if __name__ == "__main__":
    main()
