"""What a worker process does with an error, and what it keeps between fits and shards."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from d3m_ray.attribution import worker
from d3m_ray.cluster import work
from d3m_ray.cluster.work import PASSING, Work
from d3m_ray.cluster.worker import packed, unpacked
from d3m_ray.training.memory import keep_what_is_loaded, let_go_of_models
from d3m_ray.trials import trial
from d3m_ray.trials.engine import PlannedFit


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Work:
    monkeypatch.setattr(work, "keep_what_is_loaded", lambda: None)  # of the test's own process nothing is frozen
    monkeypatch.setattr(work, "ray", SimpleNamespace(get=lambda handle: handle))
    return Work(torch.get_num_threads())


def test_a_fit_that_would_fail_again_tells_its_error(process, monkeypatch):
    monkeypatch.setattr(work, "train_and_record", lambda context, planned: planned / 0)
    told = process.fit("a", 1)
    assert told["ended"] == 1
    assert told["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in told["trace"]


@pytest.mark.parametrize("error", PASSING)
def test_what_may_pass_is_raised(error, process, monkeypatch):
    def fail(context: object, planned: object) -> None:
        raise error("for now")

    monkeypatch.setattr(work, "train_and_record", fail)
    with pytest.raises(error):
        process.fit("a", 1)


def test_a_fit_tells_its_val_wga_where_it_answers_a_trial(process, monkeypatch):
    monkeypatch.setattr(work, "train_and_record", lambda context, planned: planned)
    with_trial, without = process.fit("a", 0.25), process.fit("a", None)
    assert min(with_trial.pop("seconds"), without.pop("seconds")) >= 0
    assert (with_trial, without) == ({"ended": 1, "val_wga": 0.25}, {"ended": 1})


def test_fits_and_shards_give_place_to_each_other(process, monkeypatch):
    monkeypatch.setattr(work, "train_and_record", lambda context, planned: None)
    let_go: list[str] = []
    monkeypatch.setattr(work, "let_go_of_models", lambda: let_go.append("a model"))
    for _ in "ab":
        process.shard(lambda shared: None, 0, ())
    assert let_go == []
    for _ in "ab":
        process.fit("a", 1)
    assert len(let_go) == 1
    process.shard(lambda shared: None, 0, ())
    assert len(let_go) == 2


def test_no_kind_of_work_keeps_a_model_once_it_is_let_go(monkeypatch):
    kept = {"a model": (None, None)}
    monkeypatch.setattr(worker, "_kept", dict(kept))
    monkeypatch.setattr(trial, "_models", dict(kept))
    let_go_of_models()
    assert worker._kept == trial._models == {}


def test_what_fits_share_is_read_once(process, monkeypatch):
    handles = {"a": [1], "b": [2]}
    read: list[str] = []
    monkeypatch.setattr(work, "ray", SimpleNamespace(get=lambda handle: read.append(handle) or handles[handle]))
    monkeypatch.setattr(work, "train_and_record", lambda context, planned: context[0])
    assert [process.fit(handle, None)["val_wga"] for handle in ("a", "a", "b", "b", "a")] == [1, 1, 2, 2, 1]
    assert read == ["a", "b", "a"]


def test_a_fit_travels_packed():
    fit = trial.FitSpec("a key", np.arange(0, 100_000, 7), seed=3)
    there = unpacked(packed(PlannedFit(fit, ())))
    assert there.fit.fit_key == "a key"
    assert np.array_equal(there.fit.removed, fit.removed)
    assert len(packed(PlannedFit(fit, ()))) < fit.removed.nbytes / 2


def test_what_is_loaded_before_the_first_model_is_not_looked_at_again():
    try:
        keep_what_is_loaded()
        assert gc.get_freeze_count() > 100_000
    finally:
        gc.unfreeze()
