"""Trials in TensorBoard's event files and in an MLflow store, read back."""

import builtins
import dataclasses
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from d3m_ray.commands.engines import follow
from d3m_ray.data.planted import Planted
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.experiment.tracking import trackers_of
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import LocalEngine

SMALL = ExperimentConfig(
    Planted(num_train=48, num_val=16, num_test=16),
    model="tiny",
    methods=("random",),
    num_removed=(0, 8),
    seeds=(0,),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    experiment="one",
)


def run(config: ExperimentConfig, store: Store, is_stopped: bool = False) -> None:
    with Progress() as progress:
        prepared = prepare(config, store, progress)
        follow(prepared, progress)
        run_experiment(prepared, LocalEngine(), progress)
        if is_stopped:
            raise RunError("no more")


def events_of(path: Path) -> Iterator[Event]:
    """A record is its length, the length's checksum, the content, and that one's checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]


def scalars(folder: Path, split: str) -> dict[str, tuple[int, float]]:
    """Step and figure by name, of a run's file of one split."""
    (path,) = folder.glob(f"events.*.{split}")
    values = ((event.step, value) for event in events_of(path) for value in event.summary.value)
    return {value.tag: (step, value.simple_value) for step, value in values if value.HasField("simple_value")}


def accuracies(store: Store, num_removed: int, split: str) -> dict[str, float]:
    """What the store has of a trial."""
    rows = store.read_all("trials").query("num_removed == @num_removed and split == @split").set_index("group")
    return {f"{split}/{group}/accuracy": rows.loc[group, "accuracy"] for group in ("worst", "all", "worst_cell")}


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    folder = tmp_path_factory.mktemp("tracked")
    config = dataclasses.replace(SMALL, tensorboard=folder / "events", mlflow=str(folder / "runs"))
    store = Store(folder / "store")
    with pytest.raises(RunError):
        run(config, store, is_stopped=True)
    assert not [*folder.glob("events/**/events.*.test")], "test stays closed until the summary"
    assert len([*folder.glob("events/**/events.*.val")]) == 2
    run(config, store)
    run(config, store)  # which trains nothing, and shows nothing twice
    return store, folder


def test_event_files_hold_the_figures_of_each_trial(tracked: tuple[Store, Path]) -> None:
    store, folder = tracked
    for num_removed in (0, 8):
        (of_trial,) = (folder / "events" / "one" / "random").glob(f"k={num_removed}-seed=0-*")
        for split in ("val", "test"):
            found = scalars(of_trial, split)
            assert {step for step, _ in found.values()} == {num_removed}
            for name, accuracy in accuracies(store, num_removed, split).items():
                assert found[name][1] == pytest.approx(accuracy)


def test_event_files_hold_the_settings(tracked: tuple[Store, Path]) -> None:
    (path,) = (tracked[1] / "events" / "one" / "random").glob("k=8-*/events.*.val")
    content = [v.metadata.plugin_data.content for event in events_of(path) for v in event.summary.value]
    sessions = [HParamsPluginData.FromString(each).session_start_info for each in content if each]
    settings = {name: value for session in sessions for name, value in session.hparams.items()}
    assert settings["num_removed"].number_value == 8
    assert settings["training.learning_rate"].number_value == 1e-3
    assert settings["method"].string_value == "random"


def test_an_mlflow_store_holds_a_run_for_each_trial(tracked: tuple[Store, Path]) -> None:
    from mlflow import MlflowClient

    store, folder = tracked
    client = MlflowClient(tracking_uri=str(folder / "runs"))
    experiment = client.get_experiment_by_name("one")
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {"random k=0 seed=0", "random k=8 seed=0"}
    for num_removed in (0, 8):
        of_trial = found[f"random k={num_removed} seed=0"]
        expected = accuracies(store, num_removed, "val") | accuracies(store, num_removed, "test")
        assert {name: of_trial.data.metrics[name] for name in expected} == pytest.approx(expected)
        assert of_trial.data.params["training.num_epochs"] == "1"
        assert of_trial.info.status == "FINISHED"
        assert len(client.get_metric_history(of_trial.info.run_id, "val/worst/accuracy")) == 1


def test_without_mlflow_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "mlflow":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return original(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r'not installed: install MLflow with pip install "d3m_ray\[mlflow\]"$'):
        list(trackers_of(dataclasses.replace(SMALL, mlflow="runs"), "one"))


def test_a_tracking_uri_of_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"--mlflow is a tracking URI at which MLflow answers.*received 'gopher://x'"):
        list(trackers_of(dataclasses.replace(SMALL, mlflow="gopher://x"), "one"))


def test_a_password_in_the_tracking_uri_is_refused_and_not_said() -> None:
    with pytest.raises(InputError, match="MLFLOW_TRACKING_PASSWORD") as refused:
        dataclasses.replace(SMALL, mlflow="https://me:hunter2@tracking.example:5000")
    assert "hunter2" not in str(refused.value)
