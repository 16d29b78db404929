"""The controls: loss against the library's cross-entropy, chance that depends on nothing but the shape."""

import dataclasses

import numpy as np
import pytest
import torch

from d3m_ray.attribution import controls, similarity
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.pool import LocalPool
from d3m_ray.training.model import build_classifier, load_weights


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    checkpoints = []
    for seed in (0, 1):
        pretrained = tiny_base("bert", seed=seed)
        weights = pretrained.weights | {
            "classifier.weight": pretrained.weights["classifier.weight"] * 40
        }  # losses that differ
        checkpoints.append(Checkpoint(f"controls {seed}", pretrained, weights))
    return AttributionInputs(tuple(checkpoints), made_tokens("train", 40), made_tokens("val", 14, 3), 3, "float32")


def _losses(inputs: AttributionInputs) -> np.ndarray:
    """[N] by one-example passes in float64, the mean over the checkpoints."""
    losses = []
    for checkpoint in inputs.checkpoints:
        model = build_classifier(checkpoint.pretrained).eval().double()
        load_weights(model, checkpoint.weights)
        for i in range(len(inputs.train)):
            row = inputs.train.batch(np.array([i]))
            with torch.no_grad():
                losses.append(model(row.input_ids, row.attention_mask, labels=row.labels).loss.item())
    return np.array(losses).reshape(len(inputs.checkpoints), -1).mean(axis=0)


def test_the_highest_loss_has_the_lowest_score_for_every_group_and_query(inputs):
    losses = _losses(inputs)
    assert losses.std() > 0.05
    for score, num_columns in ((controls.loss_groups, 3), (controls.loss_queries, 14)):
        scores = score(inputs, None, LocalPool())
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, np.repeat(-losses[:, None], num_columns, axis=1), atol=1e-5)
        assert np.argmin(scores[:, 0]) == np.argmax(losses)


def test_a_worker_may_take_losses_and_embeddings_in_turn(inputs):
    """They keep the same checkpoint's model, each with what it prepared."""
    one = dataclasses.replace(inputs, checkpoints=inputs.checkpoints[:1])
    losses = controls.loss_groups(one, None, LocalPool())
    assert similarity.embedding_groups(one, None, LocalPool()).shape == losses.shape
    np.testing.assert_array_equal(controls.loss_groups(one, None, LocalPool()), losses)


def test_a_large_loss_is_exact(inputs):
    """log(1 + exp(-margin)) of a margin of some hundreds, where the probability of the label is 0 in float32."""
    sure = [
        Checkpoint(f"{c.key} sure", c.pretrained, c.weights | {"classifier.bias": np.array([400.0, 0.0], np.float32)})
        for c in inputs.checkpoints
    ]
    confident = dataclasses.replace(inputs, checkpoints=tuple(sure))
    scores = controls.loss_groups(confident, None, LocalPool())[:, 0]
    assert np.isfinite(scores).all()
    wrong = inputs.train.labels == 1
    assert scores[wrong].max() < -300
    np.testing.assert_allclose(scores, -_losses(confident), rtol=1e-5)


def test_random_scores_are_normal_and_depend_on_the_shape_alone(inputs, made_tokens):
    scores = controls.random_queries(inputs, None, LocalPool())
    state = np.random.get_state()[1].tolist()  # noqa: NPY002 - what must not be touched
    other = dataclasses.replace(
        inputs, train=made_tokens("train", 40, seed=5), queries=made_tokens("val", 14, 3, seed=5), checkpoints=("x",)
    )
    np.testing.assert_array_equal(controls.random_queries(other, None, LocalPool()), scores)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert scores.shape == (40, 14)
    assert scores.dtype == np.float32
    large = controls.random_queries(
        dataclasses.replace(inputs, train=made_tokens("train", 2000)), None, LocalPool()
    ).ravel()
    assert abs(large.mean()) < 0.02
    assert abs(large.std() - 1) < 0.02
    assert abs(np.corrcoef(large[:560], scores.ravel())[0, 1]) < 0.2, "another shape draws other numbers"
