"""What Ray's dashboard, Prometheus and Grafana show of a sweep: where its fits and shards stand, and how fast it goes.

Ray exports each metric as `ray_NAME`, a counter as `ray_NAME_total`, from every process on each machine, every ten
seconds. docs/monitoring.md lists the names.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram, Metric

from d3m_ray.cluster.grafana import place_board
from d3m_ray.experiment.standing import Standing
from d3m_ray.meter import METER, DoneFor
from d3m_ray.trials.engine import FitEvent

REPORT_SECONDS = 5.0  # between two readings of the meter, in a thread: Ray exports every ten
FIT_SECONDS = [1, 3, 10, 30, 60, 180, 600, 1800, 3600, 10800]  # bounds of the histogram's bars
METRICS: Mapping[str, tuple[type[Metric], tuple[str, ...], str]] = {
    "d3m_fits": (Gauge, ("experiment", "state"), "fits of this run that are waiting, running, done or failed"),
    "d3m_fits_ended": (Counter, ("experiment", "method", "state"), "fits that are done, were retried or failed"),
    "d3m_fit_seconds": (Histogram, ("experiment", "method"), "seconds of a fit, measured where it was trained"),
    "d3m_best_val_wga": (Gauge, ("experiment", "method"), "best worst-group accuracy on val so far, 0 to 1"),
    "d3m_shards": (Gauge, ("experiment", "step"), "shards of the pass of attribution under way, or the last one"),
    "d3m_shards_done": (Gauge, ("experiment", "step"), "of these, those that are done"),
    "d3m_steps": (Counter, ("experiment", "method"), "optimiser steps of fits"),
    "d3m_examples": (Counter, ("experiment", "method"), "train examples that fits went through"),
    "d3m_tokens": (Counter, ("experiment", "method"), "tokens that fits went through, padding left out"),
    "d3m_store_seconds": (Counter, ("experiment", "method"), "seconds that reads and writes of the store took"),
    "d3m_store_calls": (Counter, ("experiment", "method"), "files and folders of the store read, written or listed"),
}
"""By name: its kind, its tags, what it says."""
METERED = {
    "steps": "d3m_steps",
    "examples": "d3m_examples",
    "tokens": "d3m_tokens",
    "store_seconds": "d3m_store_seconds",
    "store_calls": "d3m_store_calls",
}
"""By an amount of the meter, the counter that shows it."""


def metric(name: str) -> Any:
    """A new metric of `METRICS`. Those of one name in one process are one to Ray."""
    kind, tags, description = METRICS[name]
    return kind(name, description, tag_keys=tags, **({"boundaries": FIT_SECONDS} if kind is Histogram else {}))


class ProcessMetrics:
    """Shows what this process has done, by its meter, from a thread that ends with the process."""

    def __init__(self, also: Callable[[], None] = lambda: None) -> None:
        """`also` is called as often."""
        self._counters = {amount: metric(name) for amount, name in METERED.items()}
        self._shown: dict[tuple[DoneFor, str], float] = {}
        self._also = also
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="metrics", daemon=True)
        self._thread.start()

    def show(self) -> None:
        """Add to the counters what was done since the last time."""
        for account, amounts in METER.read().items():
            for name, amount in amounts.items():
                added = amount - self._shown.get((account, name), 0)
                if added > 0:
                    self._shown[account, name] = amount
                    self._counters[name].inc(added, tags=account._asdict())
        self._also()

    def end(self) -> None:
        """Show what is left, and nothing more."""
        self._is_over.set()
        self._thread.join()
        self.show()

    def _go_on(self) -> None:
        while not self._is_over.wait(REPORT_SECONDS):
            self.show()


class SweepMetrics:
    """The `Observer` of a run whose metrics say where it stands."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self._metrics = {name: metric(name) for name in METRICS if name not in METERED.values()}
        self._gauges: dict[str, dict[tuple[str, ...], float]] = {}  # by name and tags
        self._lock = threading.Lock()
        self._has_board = False
        METER.charge(DoneFor(experiment))
        self._process = ProcessMetrics(also=self._show_gauges)

    def fit(self, event: FitEvent, standing: Standing) -> None:
        method, best = event.planned.method, self._gauges.get("d3m_best_val_wga", {})
        if event.state != "started":
            self._metrics["d3m_fits_ended"].inc(tags=self._tags("d3m_fits_ended", method, event.state))
        if event.state == "done" and event.seconds is not None:
            self._metrics["d3m_fit_seconds"].observe(event.seconds, tags=self._tags("d3m_fit_seconds", method))
        if event.val_wga is not None:
            best = best | {(method,): max(event.val_wga, best.get((method,), 0.0))}
        by_state: dict[tuple[str, ...], float] = {(state,): count for state, count in standing.by_state().items()}
        self._set({"d3m_fits": by_state, "d3m_best_val_wga": best})

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        self._set({"d3m_shards": {(label,): num_shards}, "d3m_shards_done": {(label,): num_done}})

    def end(self, is_whole: bool) -> None:
        """The cluster may be left by now: see `close`."""

    def close(self) -> None:
        """Show what is left, before the cluster is left."""
        self._process.end()

    def _set(self, gauges: Mapping[str, dict[tuple[str, ...], float]]) -> None:
        with self._lock:
            self._gauges |= gauges
        self._show_gauges()

    def _show_gauges(self) -> None:
        """Once more, also where none has changed: Ray forgets a gauge that was not set for two of its exports."""
        with self._lock:
            gauges = dict(self._gauges)
        for name, values in gauges.items():
            for tags, value in values.items():
                self._metrics[name].set(value, tags=self._tags(name, *tags))
        self._has_board = self._has_board or place_board()

    def _tags(self, name: str, *values: str) -> dict[str, str]:
        return dict(zip(METRICS[name][1], (self._experiment, *values), strict=True))
