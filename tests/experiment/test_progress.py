"""What a run says while it works, to a terminal, a log, and whoever watches it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from d3m_ray.experiment import progress as progress_module
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.standing import Standing
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import FitEvent, Lost, PlannedFit
from d3m_ray.trials.trial import FitSpec, TrialSpec

SPEC = FitSpec("abc", np.arange(60), 2)
PLANNED = PlannedFit(SPEC, (TrialSpec("t", "trak", 60, 2, SPEC), TrialSpec("u", "trak_auto", 60, 2, SPEC)))


class Watching:
    """Notes what it is told."""

    def __init__(self, fails: bool = False) -> None:
        self.told: list[Any] = []
        self._fails = fails

    def fit(self, event: FitEvent, standing: Standing) -> None:
        self.told.append((event.state, event.seconds is None, standing.num_running))
        if self._fails:
            raise OSError("the disk is full")

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        self.told.append((label, num_done, num_shards))

    def end(self, is_whole: bool) -> None:
        self.told.append(is_whole)


def _lines(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("logs/*/*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_event_of_a_fit_is_a_line_that_names_it(tmp_path: Path) -> None:
    with Progress(Console(file=io.StringIO())) as progress:
        progress.log_to(Store(tmp_path), "one")
        progress.begin_fits(1)
        for state in ("started", "retried", "started", "done"):
            progress.fit(FitEvent(state, PLANNED, *((0.5, 12.3456) if state == "done" else ())))
    lines = _lines(tmp_path)
    assert [line["fit"] for line in lines] == ["started", "retried", "started", "done"]
    assert [line.get("seconds") for line in lines] == [None, None, None, 12.346], "those of where it was trained"
    expected = {"method": "trak", "num_removed": 60, "seed": 2, "fit_key": "abc", "num_trials": 2}
    assert all(line | expected == line for line in lines)
    assert [lines[-1][name] for name in ("val_wga", "num_ended", "num_fits")] == [0.5, 1, 1]
    assert str(PLANNED) == "fit trak k=60 seed=2"
    assert str(PlannedFit(FitSpec("b", np.arange(0), 1), ())) == "fit checkpoint k=0 seed=1"


def test_a_pass_of_many_shards_has_ten_lines_at_most(tmp_path: Path) -> None:
    with Progress(Console(file=io.StringIO())) as progress:
        progress.log_to(Store(tmp_path), "one")
        for label, num_shards in (("trak gradients", 128), ("trak scores", 3)):
            for number in range(num_shards):
                progress.shards(label, number + 1, num_shards)
    lines = _lines(tmp_path)
    of_many = [line["num_done"] for line in lines if line["shards"] == "trak gradients"]
    assert (len(of_many), of_many[-1]) == (10, 128)
    assert [line["num_done"] for line in lines if line["num_shards"] == 3] == [1, 2, 3]


def test_a_warning_is_one_in_the_log(tmp_path: Path) -> None:
    with Progress(Console(file=io.StringIO())) as progress:
        progress.log_to(Store(tmp_path), "one")
        progress.stage("warning: few seeds")
        progress.stage("a stage")
    assert [line["level"] for line in _lines(tmp_path)] == ["warning", "info"]


def test_a_lost_machine_is_a_line_on_the_screen_and_an_event_in_the_log(tmp_path: Path) -> None:
    screen = io.StringIO()
    with Progress(Console(file=screen, width=200)) as progress:
        progress.log_to(Store(tmp_path), "one")
        progress.lost(Lost("10.0.0.2", None, ("fit trak k=60 seed=2",), 3))
        progress.lost(Lost("10.0.0.3", "worker 4", (), 3))
    first, second = _lines(tmp_path)
    assert screen.getvalue().splitlines() == [first["message"], second["message"]]
    assert first["message"].startswith("warning: machine 10.0.0.2 has left the cluster: the run goes on; ")
    assert [first[name] for name in ("level", "lost", "machine", "num_slots")] == ["warning", "machine", "10.0.0.2", 3]
    assert (first["at"], second["at"], second["lost"]) == (["fit trak k=60 seed=2"], [], "worker 4")


def test_off_a_terminal_a_line_a_minute_says_how_far_attribution_and_fits_are(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = io.StringIO(), [1000.0]
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: now[0])
    with Progress(Console(file=screen, width=200)) as progress:
        progress.begin_fits(2)
        for seconds in (10, 61, 90):
            now[0] = 1000.0 + seconds
            progress.shards("trak scores, checkpoint 1 of 1", seconds, 100)
        assert screen.getvalue().splitlines() == ["trak scores, checkpoint 1 of 1: 61 of 100 shards, 33 s left"]
        now[0] += 61
        progress.fit(FitEvent("started", PLANNED))
    assert screen.getvalue().splitlines()[1:] == ["fits: 0 of 2 ended (0 trials), 1 running, ? left"]


def test_who_watches_is_told_of_all_and_of_the_end() -> None:
    watching = Watching()
    with pytest.raises(ValueError, match="wrong"), Progress(Console(file=io.StringIO())) as progress:  # noqa: PT012
        progress.watch(watching)
        progress.begin_fits(1)
        progress.fit(FitEvent("started", PLANNED))
        progress.shards("trak scores", 1, 2)
        progress.fit(FitEvent("done", PLANNED))
        raise ValueError("wrong")
    assert watching.told == [("started", True, 1), ("trak scores", 1, 2), ("done", True, 0), False]


def test_who_watches_and_fails_is_left_out_and_the_run_goes_on() -> None:
    screen, failing, watching = io.StringIO(), Watching(fails=True), Watching()
    with Progress(Console(file=screen, width=200)) as progress:
        progress.watch(failing)
        progress.watch(watching)
        progress.begin_fits(1)
        for state in ("started", "done"):
            progress.fit(FitEvent(state, PLANNED))
    assert len(failing.told) == 1
    assert watching.told[-1] is True
    assert screen.getvalue() == "warning: Watching ended, OSError: the disk is full; the store has every result\n"
