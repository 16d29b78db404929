"""What attribution does on a GPU, on a CPU that is taken for one: the same scores, and no waiting within a shard."""

import numpy as np
import pytest
import torch
from counted_model import Waits
from transformers import AutoConfig, AutoModelForSequenceClassification

from d3m_ray.attribution import forward, shards, worker
from d3m_ray.attribution.ekfac import curvature, linear_gradients
from d3m_ray.attribution.ekfac import scores as ekfac
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.trak import scores as trak
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.pool import LocalPool
from d3m_ray.training import budgets
from d3m_ray.training.device_masks import replace_masks

SETTINGS = {"trak": TrakConfig(projection_dim=16), "ekfac": EkfacConfig(), "loss": None, "embedding": None}
BATCH_TOKENS = 64


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    pretrained = tiny_base("bert")
    checkpoint = Checkpoint("made up", pretrained, pretrained.weights)
    return AttributionInputs((checkpoint,), made_tokens("train", 40), made_tokens("val", 14), 2, "float64")


def _model_of_a_gpu(pretrained, device):
    config = AutoConfig.for_model(**pretrained.config)
    model = AutoModelForSequenceClassification.from_config(config)
    replace_masks(model)
    return model


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The CPU is taken for a GPU by what asks for its memory, and models are as there."""
    for module in (budgets, curvature, linear_gradients):
        monkeypatch.setattr(module, "memory_of", lambda _: 2**20)
    monkeypatch.setattr(budgets, "LEAST", BATCH_TOKENS)
    monkeypatch.setattr(worker, "build_classifier", _model_of_a_gpu)
    for module in (curvature, ekfac):  # torch's reads the labels, to check them, on a CPU alone
        monkeypatch.setattr(module, "one_hot", lambda labels, num_labels: torch.eye(num_labels)[labels])
    worker.forget_models()
    yield
    worker.forget_models()


@pytest.mark.parametrize("name", SETTINGS)
def test_scores_are_those_of_a_cpu(name, inputs, request):
    scorers, settings = METHODS[name].load(), SETTINGS[name]
    expected = scorers.score_groups(inputs, settings, LocalPool())
    request.getfixturevalue("as_on_a_gpu")
    found = scorers.score_groups(inputs, settings, LocalPool())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.usefixtures("as_on_a_gpu")
def test_batches_and_blocks_of_a_gpu_are_of_its_memory(inputs):
    model = _model_of_a_gpu(inputs.checkpoints[0].pretrained, "cpu")
    sizes = [len(batch) for batch in shards.gradient_batches(np.full(64, 8), model)]
    assert sizes == [9] * 7 + [1]  # eight, and one to even them out
    assert budgets.matrices_at_once(model.device, 1, 2**10) == 2**4


def _passes(inputs: AttributionInputs):
    """By name a call for all of train in one shard: what each makes of it is in numpy arrays."""
    [checkpoint], train, config = inputs.checkpoints, inputs.train, EkfacConfig()
    positions = np.arange(len(train))

    def layers() -> curvature.LayerPass:  # each pass has one of its own
        return curvature.LayerPass(checkpoint, train, (), inputs.precision)

    def fisher() -> curvature.FisherStep:
        return curvature.FisherStep(layers(), np.full(len(train), 0.5))

    covariances = fisher()
    fitted = curvature.fit_curvature("all", inputs, checkpoint, config, LocalPool())
    squares = curvature.SquaresStep(fisher(), fitted.bases)
    directions = {name: np.ones((3, values.size)) for name, values in fitted.eigenvalues.items()}
    products = ekfac.ProductStep(layers(), directions)
    gradients = trak.GradientStep(checkpoint, train, TrakConfig(projection_dim=16), inputs.precision)
    logits = forward.ForwardStep(checkpoint, train, inputs.precision)
    return {
        "covariances": lambda: curvature.covariances_of_shard(covariances, positions),
        "squares": lambda: curvature.squares_of_shard(squares, positions),
        "products": lambda: ekfac.score_shard(products, positions),
        "projections": lambda: trak.project_shard(gradients, positions),
        "logits": lambda: forward.logits_of_shard(logits, positions),
    }


@pytest.mark.usefixtures("as_on_a_gpu")
def test_no_batch_of_a_shard_waits_for_a_value(inputs):
    """What a shard gives is copied at its end."""
    for name, run in _passes(inputs).items():
        run()  # the first one also looks at how the model uses its layers
        with Waits() as waits:
            run()
        assert waits.reads == [], name
