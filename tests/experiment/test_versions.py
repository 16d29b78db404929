"""Trials of two versions of what trains or scores never stand in one row."""

import dataclasses

import pytest
from small_sweep import SMALL

from d3m_ray.attribution.registry import METHODS
from d3m_ray.errors import InputError
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store.store import Store
from d3m_ray.trials import trial as trial_module
from d3m_ray.trials.engine import LocalEngine


def run(store: Store, **changes: object) -> None:
    config = dataclasses.replace(SMALL, **changes)  # type: ignore[arg-type]
    assert not run_experiment(prepare(config, store, Progress()), LocalEngine(), Progress()).failed


@pytest.fixture
def begun(tmp_path) -> Store:
    store = Store(tmp_path)
    run(store)
    return store


def test_more_of_the_same_version_is_added(begun):
    run(begun, seeds=(1,))
    assert set(begun.read_all("trials")["seed"]) == {0, 1}


def test_fits_of_another_version_are_not_put_beside_what_would_stay(begun, monkeypatch):
    monkeypatch.setattr(trial_module, "TRAINING_VERSION", "of another day")
    before = begun.keys("trials")
    refused = r"begun under another version of training, and 4 stored trials would stay: .* \(--seeds 0 1\)"
    with pytest.raises(InputError, match=refused):
        run(begun, seeds=(1,))
    assert begun.keys("trials") == before
    run(begun, seeds=(0, 1))
    assert not before & begun.keys("trials")
    assert len(begun.keys("trials")) == 8


def test_scores_of_another_version_concern_the_arms_that_go_by_them(begun, monkeypatch):
    monkeypatch.setitem(METHODS, "trak", dataclasses.replace(METHODS["trak"], version="of another day"))
    with pytest.raises(InputError, match=r"another version of trak, and 2 stored trials would stay"):
        run(begun, seeds=(1,))
    run(begun, methods=("random",), seeds=(1,))
    run(begun, seeds=(0, 1))
