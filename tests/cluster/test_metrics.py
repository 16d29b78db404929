"""Metrics of a sweep: what the driver and the workers add to which, and what Ray exports of it."""

import re
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
import ray

from d3m_ray.cluster import metrics
from d3m_ray.cluster.metrics import METERED, METRICS, ProcessMetrics, SweepMetrics
from d3m_ray.experiment.standing import Standing
from d3m_ray.meter import DoneFor, Meter
from d3m_ray.trials.engine import FitEvent, PlannedFit, State
from d3m_ray.trials.trial import FitSpec, TrialSpec

SPEC = FitSpec("abc", np.arange(60), 2)
PLANNED = PlannedFit(SPEC, (TrialSpec("t", "trak", 60, 2, SPEC),))


class Noted:
    """In the place of Ray's metrics: what each is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.meter = Meter()
        monkeypatch.setattr(metrics, "metric", lambda name: _NotedMetric(name, self.told))
        monkeypatch.setattr(metrics, "METER", self.meter)
        monkeypatch.setattr(metrics, "place_board", lambda: True)


class _NotedMetric:
    def __init__(self, name: str, told: list[tuple[Any, ...]]) -> None:
        def note(value: float = 1, tags: dict[str, str] | None = None) -> None:
            assert set(tags or {}) == set(METRICS[name][1])
            told.append((name, value, *list((tags or {}).values())[1:]))

        self.set = self.inc = self.observe = note


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    return Noted(monkeypatch)


def test_what_was_done_since_the_last_time_is_added(noted: Noted) -> None:
    shown = ProcessMetrics()
    noted.meter.charge(DoneFor("one", "trak"))
    noted.meter.add(steps=2, examples=64)
    shown.show()
    shown.show()
    noted.meter.add(steps=1)
    shown.end()
    assert noted.told == [("d3m_steps", 2, "trak"), ("d3m_examples", 64, "trak"), ("d3m_steps", 1, "trak")]


def test_a_sweep_shows_where_its_fits_and_shards_stand(noted: Noted) -> None:
    shown, standing = SweepMetrics("one"), Standing().with_fits(3)
    events: list[tuple[State, float | None, float | None]] = [
        ("started", None, None),
        ("done", 12.0, 0.5),
        ("started", None, None),
        ("done", 10.0, 0.25),
    ]
    for state, seconds, val_wga in events:
        event = FitEvent(state, PLANNED, val_wga, seconds)
        standing = standing.after(event)
        shown.fit(event, standing)
    shown.shards("trak scores", 3, 16)
    shown.close()
    assert [told for told in noted.told if told[0] == "d3m_fits"][-4:] == [
        *(("d3m_fits", 1, "waiting"), ("d3m_fits", 0, "running")),
        *(("d3m_fits", 2, "done"), ("d3m_fits", 0, "failed")),
    ]
    assert {told for told in noted.told if told[0] == "d3m_best_val_wga"} == {("d3m_best_val_wga", 0.5, "trak")}
    assert [told[1] for told in noted.told if told[0] == "d3m_fit_seconds"] == [12.0, 10.0]
    assert noted.told.count(("d3m_fits_ended", 1, "trak", "done")) == 2
    assert noted.told[-2:] == [("d3m_shards", 16, "trak scores"), ("d3m_shards_done", 3, "trak scores")]


def test_gauges_are_set_again_where_nothing_happens_and_those_of_the_pass_before_are_not(noted: Noted) -> None:
    """Ray forgets a gauge within two exports: a fit may take hours."""
    shown = SweepMetrics("one")
    shown.shards("trak gradients", 16, 16)
    shown.shards("trak scores", 3, 16)
    noted.told.clear()
    shown._process.show()
    assert noted.told == [("d3m_shards", 16, "trak scores"), ("d3m_shards_done", 3, "trak scores")]
    shown.close()


def test_the_page_on_monitoring_lists_every_metric_with_its_tags() -> None:
    page = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(d3m_\w+)` \| (\w+ \| [^|]*) \|", page, re.MULTILINE))
    kinds = {name: (kind.__name__.lower(), tags[1:]) for name, (kind, tags, _) in METRICS.items()}
    listed = {}
    for name, row in rows.items():
        kind, _, tags = row.partition(" | ")
        listed[name] = kind, tuple(tag.strip(" `") for tag in tags.split(","))
    assert listed == kinds
    assert set(METERED.values()) <= set(METRICS)


@pytest.mark.slow
def test_ray_exports_what_a_process_has_done() -> None:
    """Where Prometheus would ask: at the port that Ray tells of."""
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=100_000_000,
        _system_config={"metrics_report_interval_ms": 500},
    )
    try:
        shown = SweepMetrics("one")
        event = FitEvent("started", PLANNED)
        shown.fit(event, Standing().with_fits(2).after(event))
        metrics.METER.charge(DoneFor("one", "trak"))
        metrics.METER.add(examples=64)
        shown.close()
        (node,) = ray.nodes()
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        exported, deadline = "", time.monotonic() + 60
        while time.monotonic() < deadline and not ("d3m_examples" in exported and "d3m_fits" in exported):
            time.sleep(0.5)
            with urlopen(address, timeout=10) as page:
                exported = page.read().decode()
    finally:
        ray.shutdown()
    running = re.search(r'^ray_d3m_fits\{.*experiment="one".*state="running".*\} ([\d.]+)', exported, re.MULTILINE)
    examples = re.search(r'^ray_d3m_examples_total\{.*method="trak".*\} ([\d.]+)', exported, re.MULTILINE)
    assert (running and running[1], examples and examples[1]) == ("1.0", "64.0")
