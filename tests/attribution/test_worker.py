"""The model that a worker keeps between shards, and lets go of when another pass begins."""

import dataclasses
import gc
import weakref

import numpy as np
import pytest

from d3m_ray.attribution import worker
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.pool import LocalPool

WITH_MODEL = [name for name, method in METHODS.items() if method.scores_queries and name not in ("random", "bm25")]
pytestmark = pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref]:
    """Every model that a worker builds, by a reference that does not keep it."""
    models: list[weakref.ref] = []
    build = worker.build_classifier

    def building(*arguments):
        model = build(*arguments)
        models.append(weakref.ref(model))
        return model

    monkeypatch.setattr(worker, "build_classifier", building)
    monkeypatch.setattr(worker, "MAX_BYTES_LET_GO", 0)
    return models


@pytest.mark.parametrize("method", WITH_MODEL)
def test_no_pass_of_a_method_keeps_the_model_of_an_earlier_one(method, tiny_base, made_tokens, built):
    pretrained = tiny_base("bert")
    train, queries = made_tokens("train", 12), made_tokens("val", 4)
    inputs = AttributionInputs((Checkpoint("made", pretrained, pretrained.weights),), train, queries, 2, "float32")
    field = METHODS[method].settings
    settings = None if field is None else getattr(ExperimentConfig(Planted()), field)
    settings = dataclasses.replace(settings, projection_dim=16) if field == "trak" else settings
    METHODS[method].load().score_queries(inputs, settings, LocalPool())
    assert built
    worker.loaded_model(dataclasses.replace(inputs.checkpoints[0], key="another"), "", "float32", lambda model: None)
    assert [model() for model in built[:-1]] == [None] * (len(built) - 1)


def test_small_models_are_collected_once_they_are_many(tiny_base, built, monkeypatch):
    pretrained = tiny_base("bert")
    size = sum(weights.nbytes for weights in pretrained.weights.values())
    monkeypatch.setattr(worker, "_num_bytes_let_go", 0)
    monkeypatch.setattr(worker, "MAX_BYTES_LET_GO", 2.5 * size)
    collected = []
    monkeypatch.setattr(worker, "give_memory_back", lambda: collected.append(len(built)))
    worker._kept.clear()
    for number in range(8):
        checkpoint = Checkpoint(f"number {number}", pretrained, pretrained.weights)
        worker.loaded_model(checkpoint, "pass", "float32", lambda model: None)
    assert collected == [3, 6]


def test_the_same_pass_keeps_its_model(tiny_base, built):
    pretrained = tiny_base("bert")
    checkpoint = Checkpoint("kept", pretrained, pretrained.weights)
    first = worker.loaded_model(checkpoint, "pass", "float32", lambda model: np.zeros(1))
    again = worker.loaded_model(checkpoint, "pass", "float32", lambda model: np.zeros(1))
    assert first[0] is again[0]
    assert first[1] is again[1]
    assert len(built) == 1
    del first, again
    gc.collect()
    assert built[0]() is not None


def test_no_model_is_kept_that_was_forgotten(tiny_base, built):
    pretrained = tiny_base("bert")
    checkpoint = Checkpoint("one", pretrained, pretrained.weights)
    first, _ = worker.loaded_model(checkpoint, "", "float32", lambda model: None)
    assert worker.loaded_model(checkpoint, "", "float32", lambda model: None)[0] is first
    worker.forget_models()
    assert worker.loaded_model(checkpoint, "", "float32", lambda model: None)[0] is not first
