"""Trials in TensorBoard and MLflow, for who looks at experiments there: settings and val at once, test in the end.

The store is the record; what is written here can be made again from it. tensorboardX comes with Ray Tune. MLflow is an
extra, `pip install "d3m_ray[mlflow]"`.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from d3m_ray.errors import InputError, reason
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.standing import Standing
from d3m_ray.store.files import check_writable_folder, expanded
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import FitEvent, trial_name

SUMMARISED = ("worst", "all", "worst_cell")  # groups that are shown of each trial; the store has every one
FIGURES = ("accuracy", "loss", "auc", "macro_f1")  # columns of `trials`
SETTINGS = ("dataset", "model", "objective", "training", "robust", "recipe")  # of what the metadata hold
EXTRA = 'install MLflow with pip install "d3m_ray[mlflow]"'


class Tracker(Protocol):
    """Where the trials of an experiment are shown."""

    def show(self, trial: "TrackedTrial", split: str, figures: Mapping[str, float]) -> None:
        """Show the figures of one split, by names as val/worst/accuracy, under the trial; val before test."""
        ...


class TrackedTrial:
    """A trial that is stored: what it is called, its settings, and its figures of a split."""

    def __init__(self, store: Store, rows: pd.DataFrame) -> None:
        first = rows.iloc[0]
        self._store, self._rows = store, rows
        self.key, self.method, self.experiment = str(first["trial_key"]), str(first["method"]), str(first["experiment"])
        self.num_removed, self.seed = int(first["num_removed"]), int(first["seed"])

    @property
    def name(self) -> str:
        return trial_name(self.method, self.num_removed, self.seed)

    def settings(self) -> dict[str, str | int | float | bool]:
        """Its settings by their names, those of a stage as training.num_epochs; of other values their text."""
        made_with = self._store.read_metadata("trials", self.key, self.method)["configuration"]
        told = {name: made_with[name] for name in SETTINGS if name in made_with}
        own = {"method": self.method, "num_removed": self.num_removed, "seed": self.seed}
        return {name: v if isinstance(v, str | int | float | bool) else str(v) for name, v in _flat(own | told)}

    def figures(self, split: str) -> dict[str, float]:
        """Those of the split that are numbers, by name."""
        rows = self._rows[(self._rows["split"] == split) & self._rows["group"].isin(SUMMARISED)]
        return {
            f"{split}/{row['group']}/{figure}": float(row[figure])
            for row in rows.to_dict("records")
            for figure in FIGURES
            if pd.notna(row[figure])
        }


class TensorboardTracker:
    """Event files, a run for each trial, FOLDER/EXPERIMENT/METHOD/k=NUMBER-seed=SEED-KEY; figures at step NUMBER."""

    def __init__(self, folder: Path) -> None:
        self._folder = expanded(folder, "--tensorboard")
        check_writable_folder(self._folder, "--tensorboard")

    def show(self, trial: TrackedTrial, split: str, figures: Mapping[str, float]) -> None:
        from tensorboardX import SummaryWriter
        from tensorboardX.summary import hparams

        run = f"k={trial.num_removed}-seed={trial.seed}-{trial.key[:8]}"
        folder = self._folder / trial.experiment / trial.method / run
        suffix = f".{split}"
        if any(folder.glob(f"events.*{suffix}")):  # of an earlier run of the same command
            return
        with SummaryWriter(str(folder), filename_suffix=suffix) as writer:
            if split == "val":
                for summary in hparams(trial.settings(), dict.fromkeys(figures, 0.0)):
                    writer.file_writer.add_summary(summary)
            for name, figure in figures.items():
                writer.add_scalar(name, figure, trial.num_removed)


class MlflowTracker:
    """Runs of an MLflow experiment of the same name, one for each trial, at any tracking URI that MLflow knows."""

    def __init__(self, uri: str, experiment: str) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # seconds; and no more than a try or two
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        if "://" not in uri or uri.startswith("file:"):
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # who names a folder has been told of databases
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise InputError(f"--mlflow takes the package MLflow, which is not installed: {EXTRA}") from error
        try:
            self._client = MlflowClient(tracking_uri=uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment = self._client.create_experiment(experiment) if found is None else found.experiment_id
        except Exception as error:  # of the many kinds of its stores
            rule = "--mlflow is a tracking URI at which MLflow answers, or a folder"
            raise InputError(f"{rule}, received {uri!r}: {reason(error)}") from error
        self._runs: dict[str, tuple[str, set[str]]] = {}  # by a trial's key: the run, and the names of its figures

    def show(self, trial: TrackedTrial, split: str, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        run, shown = self._runs[trial.key] = self._runs.get(trial.key) or self._run_of(trial)
        now = int(time.time() * 1000)
        added = [Metric(*figure, now, trial.num_removed) for figure in figures.items() if figure[0] not in shown]
        if added:
            self._client.log_batch(run, metrics=added)
            shown |= figures.keys()
        if added and split == "test":
            self._client.set_terminated(run)

    def _run_of(self, trial: TrackedTrial) -> tuple[str, set[str]]:
        """That of an earlier run of the same command, where there is one."""
        from mlflow.entities import Param

        found = self._client.search_runs([self._experiment], f"tags.trial_key = '{trial.key}'", max_results=1)
        if found:
            return found[0].info.run_id, set(found[0].data.metrics)
        tags = {"trial_key": trial.key, "method": trial.method}
        run: str = self._client.create_run(self._experiment, run_name=trial.name, tags=tags).info.run_id
        self._client.log_batch(run, params=[Param(name, str(value)) for name, value in trial.settings().items()])
        return run, set()


class Tracking:
    """The `Observer` that shows each trial as it is recorded, and in the end those that were stored before, and test.

    Test stays closed until the summary: a run that is stopped shows none of it.
    """

    def __init__(self, tracker: Tracker, store: Store, experiment: str) -> None:
        self._tracker, self._store, self._experiment = tracker, store, experiment
        self._shown: set[str] = set()

    def fit(self, event: FitEvent, standing: Standing) -> None:
        if event.state == "done":
            for trial in event.planned.trials:
                self._show(self._store.read("trials", trial.trial_key, trial.method), ("val",))

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        """Nothing of it is a result."""

    def end(self, is_whole: bool) -> None:
        """Show test too, where the run has come to its end."""
        if is_whole:
            rows = self._store.read_all("trials", filters=[("experiment", "==", self._experiment)])
            for _, of_trial in rows.groupby("trial_key", sort=False):
                self._show(of_trial, ("val", "test"))

    def _show(self, rows: pd.DataFrame, splits: Sequence[str]) -> None:
        trial = TrackedTrial(self._store, rows)
        for split in splits:
            if split == "test" or trial.key not in self._shown:
                self._tracker.show(trial, split, trial.figures(split))
        self._shown.add(trial.key)


def trackers_of(config: ExperimentConfig, experiment: str) -> Iterator[Tracker]:
    """Those that were asked for. Raises InputError, or StoreError, where one cannot be used."""
    if config.tensorboard is not None:
        yield TensorboardTracker(config.tensorboard)
    if config.mlflow is not None:
        yield MlflowTracker(config.mlflow, experiment)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
