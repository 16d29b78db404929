"""The log of a run: every line with its time, in the store and by the standard library's logging."""

import dataclasses
import json
import logging
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from d3m_ray.commands.signals import Stopped
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.experiment import log
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import FitEvent, LocalEngine, PlannedFit
from d3m_ray.trials.trial import FitSpec

SMALL = ExperimentConfig(
    Planted(num_train=48, num_val=16, num_test=16),
    model="tiny",
    methods=("random",),
    num_removed=(0, 8),
    seeds=(0,),
    training=TrainingConfig(num_epochs=1),
    experiment="one",
)
FIELDS = ("time", "level", "message")
FIELDS_OF_FITS = (
    *("fit", "method", "num_removed", "seed", "fit_key", "num_trials"),
    *("seconds", "val_wga", "num_ended", "num_fits"),
)
FIELDS_OF_SHARDS = ("shards", "num_done", "num_shards")
FIELDS_OF_LOSSES = ("lost", "machine", "at", "cause", "num_slots")


def _lines(store: Store) -> list[dict[str, object]]:
    (path,) = Path(str(store)).glob("logs/*/*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_run_leaves_its_log_beside_its_results(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Progress() as progress:
        run_experiment(prepare(SMALL, store, progress), LocalEngine(), progress)
    told = _lines(store)
    assert Path(tmp_path, "logs", "one").is_dir()
    assert told[0]["message"].startswith("planted: 48 train")  # said before the experiment had a name
    assert [line["fit"] for line in told if "fit" in line] == ["started", "done"] * 2
    last = told[-1]
    assert set(last) == {*FIELDS, *FIELDS_OF_FITS}
    assert (last["level"], last["num_ended"], last["num_fits"]) == ("info", 2, 2)
    assert last["fit_key"] in store.keys("fits")
    assert sorted(line["time"] for line in told) == [line["time"] for line in told]


def test_what_ends_a_run_is_in_its_log(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreError), Progress() as progress:  # noqa: PT012
        progress.log_to(store, "one")
        raise StoreError("the disk is full: 100%")
    assert _lines(store)[-1]["level"] == "error"
    assert _lines(store)[-1]["message"] == "ended by StoreError: the disk is full: 100%"


@pytest.mark.parametrize(
    ("error", "said"),
    [(Stopped(signal.SIGTERM), "ended by SIGTERM"), (KeyboardInterrupt(), "interrupted")],
)
def test_a_signal_that_ends_a_run_is_named_once(error: BaseException, said: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt), Progress() as progress:  # noqa: PT012
        progress.log_to(store, "one")
        raise error
    assert _lines(store)[-1]["message"] == said


def test_the_standard_librarys_handlers_get_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "d3m_ray")
    with Progress() as progress:
        progress.stage("100% of it")
        progress.begin_fits(2)
        progress.fit(FitEvent("started", PlannedFit(FitSpec("f", np.arange(3), 2), ())))
    progress.stage("after the run")
    said = [record.getMessage() for record in caplog.records if record.name == "d3m_ray"]
    assert said[0] == "100% of it"
    assert said[1].startswith("fits: 0 of 2 ended")
    assert said[-1] == "after the run"


def test_who_logs_warnings_alone_is_told_of_no_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The screen has it already; the file has every line, and the logger's level stays the user's."""
    store = Store(tmp_path)
    with pytest.raises(StoreError), Progress() as progress:  # noqa: PT012
        progress.log_to(store, "one")
        progress.stage("a stage")
        raise StoreError("the disk is full")
    assert [record.getMessage() for record in caplog.records] == ["ended by StoreError: the disk is full"]
    assert _lines(store)[0]["message"] == "a stage"
    assert log.LOGGER.level == logging.NOTSET


def test_two_runs_of_one_moment_have_a_file_each_of_their_own_lines(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with Progress() as one, Progress() as other:
        for progress, said in ((one, "of one"), (other, "of the other")):
            progress.log_to(store, "both")
            progress.stage(said)
    files = [path.read_text(encoding="utf-8") for path in tmp_path.glob("logs/both/*.jsonl")]
    assert sorted(json.loads(text)["message"] for text in files) == ["of one", "of the other"]


def test_a_name_that_is_no_unicode_is_logged(tmp_path: Path) -> None:
    store, run_log = Store(tmp_path), log.RunLog()
    run_log.place(store, "one")
    run_log.tell(logging.INFO, "the folder \udcff")
    assert _lines(store)[0]["message"] == "the folder \udcff"


def test_the_file_is_written_seldom_and_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, written = Store(tmp_path), []
    monkeypatch.setattr(Store, "write_log", lambda self, experiment, run, lines: written.append(lines.count(b"\n")))
    with Progress() as progress:
        progress.log_to(store, "one")
        for number in range(5):
            progress.stage(str(number))
        assert written == [1]
    assert written == [1, 5]
    monkeypatch.setattr(log, "WRITE_SECONDS", 0.0)
    with Progress() as progress:
        progress.log_to(store, "one")
        progress.stage("each line")
        progress.stage("at once")
    assert written[2:] == [1, 2]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise StoreError("read-only")

    monkeypatch.setattr(Store, "write_log", refuse)
    with Progress() as progress:
        progress.log_to(Store(tmp_path), "one")
        progress.stage("on")


def test_the_page_on_the_store_tells_of_every_field() -> None:
    page = (Path(__file__).parents[2] / "docs" / "store.md").read_text(encoding="utf-8")
    table = page[page.index("## Logs") : page.index("## Keys")]
    named = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert named == {*FIELDS, *FIELDS_OF_FITS, *FIELDS_OF_SHARDS, *FIELDS_OF_LOSSES}


def test_no_line_holds_a_text_of_the_corpus(tmp_path: Path) -> None:
    """Fits, attribution and what was selected are told by counts and names alone."""
    config = dataclasses.replace(SMALL, methods=("trak", "random"), num_removed=(4,))
    store = Store(tmp_path)
    with Progress() as progress:
        run_experiment(prepare(config, store, progress), LocalEngine(), progress)
    (path,) = Path(str(store)).glob("logs/*/*.jsonl")
    said = path.read_text(encoding="utf-8")
    assert FIELDS_OF_SHARDS[0] in said
    texts = [text for split in load_splits(config.corpus).by_name().values() for text in split.texts]
    assert [text for text in texts if text in said] == []
