"""Sets of fits overlap with attribution and with each other, each fit is trained once, and what keeps one is raised."""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest

from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.planted import Planted
from d3m_ray.errors import RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.fits import Fits
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import Outcome, Run
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.pool import OnProgress, WorkerPool
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import FailedFit, FitEvent, LocalEngine, OnFit, PlannedFit
from d3m_ray.trials.trial import FitSpec, TrialContext, TrialSpec, plan_trial

SMALL = ExperimentConfig(
    corpus=Planted(num_train=64, num_val=24, num_test=24),
    model="tiny",
    methods=("trak", "embedding", "random"),
    num_removed=(0, 6),
    seeds=(0,),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=TrakConfig(projection_dim=16),
)
SPEC = FitSpec("abc", np.arange(6), 0)
PLANNED = PlannedFit(SPEC, (TrialSpec("t", "random", 6, 0, SPEC),))


class LateFits:
    """A set that is trained when it is waited for, as one is behind which others wait on a cluster."""

    def __init__(self, engine: "LateEngine", name: str, *asked: object) -> None:
        self._engine, self._name, self._asked = engine, name, asked
        self._failed: list[FailedFit] | None = None

    def wait(self) -> list[FailedFit]:
        if self._failed is None:
            self._engine.log.append(f"waited for {self._name}")
            self._failed = LocalEngine.begin_fits(self._engine, *self._asked).wait()
        return self._failed


class LateEngine(LocalEngine):
    """Trains nothing before it must, and notes in which order things are asked of it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    @contextmanager
    def pool(self, on_progress: OnProgress) -> Iterator[WorkerPool]:
        self.log.append("attribution")
        with super().pool(on_progress) as pool:
            yield pool

    def begin_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> LateFits:
        methods = sorted({trial.method for planned in fits for trial in planned.trials})
        name = "base models" if fits[0].fit.keeps_weights else " ".join(methods)
        self.log.append(f"begun: {name}")
        return LateFits(self, name, context, fits, on_fit)


def run(config: ExperimentConfig, store: Store, engine: LocalEngine) -> Outcome:
    with Progress() as progress:
        return run_experiment(prepare(config, store, progress), engine, progress)


def test_attribution_and_each_alignments_arms_begin_when_what_they_read_is_there(tmp_path, assert_same_results):
    engine, stores = LateEngine(), [Store(tmp_path / name) for name in ("late", "in turn")]
    methods = (*SMALL.methods, "random_majority")
    for store, used in zip(stores, (engine, LocalEngine()), strict=True):
        outcome = run(dataclasses.replace(SMALL, methods=methods), store, used)
        assert (outcome.failed, outcome.unscored) == ([], [])
    begun = [line for line in engine.log if not line.startswith("waited for ")]
    assert begun == [
        *("begun: base models", "begun: random", "begun: random_majority"),
        *("attribution", "begun: trak", "attribution", "begun: embedding"),
    ]
    assert engine.log[2] == "waited for base models"
    assert engine.log[-4:] == [f"waited for {each}" for each in ("random", "random_majority", "trak", "embedding")]
    assert_same_results(*stores)


@pytest.fixture
def begun(tmp_path) -> tuple[Run, LateEngine]:
    """A run whose model is prepared, and nothing of which is trained."""
    engine = LateEngine()
    prepared = prepare(SMALL, Store(tmp_path), Progress())
    return Run(prepared.config, prepared.context, engine, Progress()), engine


@pytest.mark.parametrize("fails", [False, True])
def test_a_fit_that_two_sets_ask_for_is_trained_once_and_answers_both(fails, begun, monkeypatch):
    run, engine = begun
    removed = np.arange(64 if fails else 5)
    one, other = (plan_trial(run.context, method, removed, seed=0) for method in ("random", "trak"))
    alone = plan_trial(run.context, "trak", np.arange(3), seed=0)
    fits = Fits(run)
    fits.begin([one], by="one")
    fits.begin([one, other, alone], by="other")
    assert engine.log == ["begun: random", "begun: trak"]
    assert run.context.store.keys("fits") == set()
    fits.wait()
    stored = run.context.store.keys("failures" if fails else "trials")
    assert stored == {one.trial_key, other.trial_key} | (set() if fails else {alone.trial_key})
    assert [failure.fit_key for failure in fits.failed] == ([one.fit.fit_key] if fails else [])
    assert run.context.store.keys("fits") == {alone.fit.fit_key} | (set() if fails else {one.fit.fit_key})
    fits.begin([one, other, alone])
    assert len(engine.log) == 4, "each was begun before"


def test_only_the_sets_that_are_read_are_waited_for(begun):
    run, engine = begun
    first, second = (plan_trial(run.context, "random", np.arange(number), seed=0) for number in (2, 3))
    fits = Fits(run)
    fits.begin([second], [first.fit])
    assert len(engine.log) == 2, "what is read is a set of its own"
    fits.wait([first.fit])
    assert run.context.store.keys("fits") == {first.fit.fit_key}


def test_what_keeps_a_set_from_its_end_is_raised_where_it_is_waited_for(begun, monkeypatch):
    def give_out(self: LateFits) -> list[FailedFit]:
        raise RunError("no room")

    run, _ = begun
    fits = Fits(run)
    fits.begin([plan_trial(run.context, "random", np.arange(2), seed=0)])
    monkeypatch.setattr(LateFits, "wait", give_out)
    for _ in "ab":
        with pytest.raises(RunError, match="no room"):
            fits.wait()


def test_progress_counts_the_sets_together_beside_the_shards():
    progress = Progress()
    progress.begin_fits(2)
    progress.fit(FitEvent("started", PLANNED))
    progress.begin_fits(3)
    progress.fit(FitEvent("done", PLANNED, 0.5))
    progress.shards("trak", 1, 4)
    shown = str(progress._live.renderable)
    assert shown.splitlines()[0].startswith("trak: 1 of 4 shards, ")
    assert shown.splitlines()[1].startswith("fits: 1 of 5 ended (1 trial), 0 running")
    progress.stage("trak: 64 train examples aligned")
    assert str(progress._live.renderable).startswith("fits: 1 of 5 ended"), "fits go on"
    for _ in range(4):
        progress.fit(FitEvent("started", PLANNED))
        progress.fit(FitEvent("failed", PLANNED))
    assert str(progress._live.renderable) == ""
    progress.begin_fits(1)
    assert progress.fits_line().startswith("fits: 0 of 1 ended (0 trials), 0 running"), "from zero, as all had ended"
