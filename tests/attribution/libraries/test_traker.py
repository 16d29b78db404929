"""The traker method against the traker library run by its own documented calls; the same for any batches and shards."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit
from trak import TRAKer
from trak.projectors import BasicProjector

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries import traker
from d3m_ray.attribution.libraries import traker_margin as margin_output
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.errors import InputError
from d3m_ray.pool import LocalPool
from d3m_ray.training.batching import TokenizedExamples
from d3m_ray.training.model import build_classifier, load_weights, logits_of, margins_of

CONFIG = TrakConfig(projection_dim=128, damping=0.3)
pytestmark = pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    bases = [tiny_base("bert", seed=seed) for seed in (0, 1)]
    checkpoints = tuple(
        Checkpoint(f"seed {seed}", pretrained, pretrained.weights) for seed, pretrained in enumerate(bases)
    )
    return AttributionInputs(checkpoints, made_tokens("train", 60), made_tokens("val", 14, 3), 3, "float32")


def _model(checkpoint: Checkpoint):
    model = build_classifier(checkpoint.pretrained).eval()
    load_weights(model, checkpoint.weights)
    return model


def _by_the_library(inputs: AttributionInputs, config: TrakConfig, folder, lambda_reg: float) -> np.ndarray:
    """[N, Q] scores of a plain `TRAKer`: its own projector, score computer and store, one batch of everything."""
    model = _model(inputs.checkpoints[0])
    model.set_attn_implementation(margin_output.ATTENTION)
    library = TRAKer(
        model=model, task=margin_output.Margin(), train_set_size=len(inputs.train), save_dir=folder, device="cpu",
        proj_dim=config.projection_dim, projector_seed=config.projection_seed, lambda_reg=lambda_reg,
        use_half_precision=False, logging_level=50,
    )  # fmt: skip
    train, queries = (
        margin_output.columns(tokens.batch(np.arange(len(tokens)))) for tokens in (inputs.train, inputs.queries)
    )
    weights = [_model(checkpoint).state_dict() for checkpoint in inputs.checkpoints]
    for model_id, state in enumerate(weights):
        library.load_checkpoint(state, model_id=model_id)
        library.featurize(train, num_samples=len(inputs.train))
    library.finalize_features()
    for model_id, state in enumerate(weights):
        library.start_scoring_checkpoint("val", state, model_id=model_id, num_targets=len(inputs.queries))
        library.score(queries, num_samples=len(inputs.queries))
    return np.array(library.finalize_scores("val"))


def _features(inputs: AttributionInputs, config: TrakConfig) -> np.ndarray:
    """[N, d] the library's features of the first checkpoint's train examples, float64."""
    task = traker.TrakerStep(inputs.checkpoints[0], 0, inputs.train, config, inputs.precision, "cpu")
    return traker.featurize_shard(task, [np.arange(len(inputs.train))]).gradients.astype(np.float64)


def _assert_close(scores: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(scores, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("num_checkpoints", [1, 2])
@pytest.mark.parametrize("projection_dim", [48, 128])
def test_scores_are_those_of_the_plain_library(inputs, num_checkpoints, projection_dim, tmp_path, monkeypatch):
    # Up to 100 dimensions the library cannot score once it has freed its projector's only block.
    monkeypatch.setattr(BasicProjector, "free_memory", lambda projector: None)
    # With several checkpoints the library adds one absolute ridge to all, ours are relative: both get this one.
    inputs = dataclasses.replace(inputs, checkpoints=inputs.checkpoints[:num_checkpoints])
    config = dataclasses.replace(CONFIG, projection_dim=projection_dim, projection_seed=3)
    ridge = _ridge(_features(inputs, config), 1.0)
    monkeypatch.setattr(traker, "ridge_of", lambda xtx, damping: ridge)
    expected = _by_the_library(inputs, config, tmp_path, ridge)
    _assert_close(traker.score_queries(inputs, config, LocalPool()), expected, 1e-5)


def test_the_library_alone_cannot_score_in_few_dimensions(inputs, tmp_path):
    inputs = dataclasses.replace(inputs, checkpoints=inputs.checkpoints[:1])
    with pytest.raises(AttributeError, match="proj_matrix"):
        _by_the_library(inputs, dataclasses.replace(CONFIG, projection_dim=100), tmp_path, 1e-4)


def _ridge(features: np.ndarray, damping: float) -> float:
    """The damping times the mean of the nonzero eigenvalues of the features' Gram matrix."""
    return damping * np.square(features).sum() / min(features.shape)


def test_damping_is_a_ridge_in_means_of_the_nonzero_eigenvalues(inputs, tmp_path):
    inputs = dataclasses.replace(inputs, checkpoints=inputs.checkpoints[:1])
    scores = traker.score_queries(inputs, CONFIG, LocalPool())
    _assert_close(
        scores, _by_the_library(inputs, CONFIG, tmp_path, _ridge(_features(inputs, CONFIG), CONFIG.damping)), 1e-5
    )
    _assert_close(scores, _by_hand(inputs, CONFIG), 1e-5)


def _by_hand(inputs: AttributionInputs, config: TrakConfig) -> np.ndarray:
    """[N, Q] by the module's docstring for one checkpoint, explicit inverse, float64, from the library's features."""
    features = _features(inputs, config)
    queries = dataclasses.replace(inputs, train=dataclasses.replace(inputs.queries, split="train"))
    inverse = np.linalg.inv(features.T @ features + _ridge(features, config.damping) * np.eye(features.shape[1]))
    out_to_loss = _out_to_loss(inputs.checkpoints[0], inputs.train)
    return features @ inverse @ _features(queries, config).T / np.abs(inverse).mean() * out_to_loss[:, None]


def _out_to_loss(checkpoint: Checkpoint, tokens: TokenizedExamples) -> np.ndarray:
    batch = tokens.batch(np.arange(len(tokens)))
    with torch.no_grad():
        return expit(-margins_of(logits_of(_model(checkpoint), batch), batch.labels).double().numpy())


def test_a_singular_matrix_without_damping_is_refused(inputs):
    with pytest.raises(InputError, match="fewer than --projection-dim 128 dimensions, received 0 with 60"):
        traker.score_queries(inputs, TrakConfig(128, damping=0.0), LocalPool())


@pytest.mark.parametrize(("batch_size", "max_shards"), [(7, 128), (3, 4), (60, 1)])
def test_batches_and_shards_change_no_score(inputs, batch_size, max_shards, monkeypatch):
    whole = traker.score_groups(inputs, CONFIG, LocalPool())
    num_parameters = sum(array.size for array in inputs.checkpoints[0].weights.values())
    monkeypatch.setattr(traker, "GRADIENT_BYTES", 4 * num_parameters * batch_size)
    monkeypatch.setattr(traker, "MAX_SHARDS", max_shards)
    shards = traker.make_batches(inputs.train, inputs.checkpoints[0], "float32")
    assert max(len(batch) for shard in shards for batch in shard) == batch_size
    assert len(shards) <= max_shards
    assert sorted(np.concatenate([batch for shard in shards for batch in shard])) == list(range(60))
    _assert_close(traker.score_groups(inputs, CONFIG, LocalPool()), whole, 1e-5)


def test_the_matrix_is_drawn_in_parts_that_fit(inputs, monkeypatch):
    """60 dimensions in parts of 7, the last of 4: each normal, from a seed of its own by the library's rule."""
    model = _model(inputs.checkpoints[1])
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    gradients = margin_output.gradient_computer(model).compute_per_sample_grad(
        margin_output.columns(inputs.train.batch(np.arange(len(inputs.train))))
    )
    flat = torch.cat([gradient.detach().flatten(1) for gradient in gradients.values()], dim=1)
    parts = [
        flat @ torch.empty(num_parameters, 7).normal_(generator=torch.Generator().manual_seed(5 + 1000 * i + 100_000))
        for i in range(9)
    ]
    monkeypatch.setattr(traker, "BLOCK_BYTES", 4 * 7 * num_parameters)
    config = TrakConfig(60, projection_seed=5)
    task = traker.TrakerStep(inputs.checkpoints[1], 1, inputs.train, config, "float32", "cpu")
    found = traker.featurize_shard(task, [np.arange(len(inputs.train))]).gradients
    _assert_close(found, (torch.cat(parts, dim=1)[:, :60] / num_parameters**0.5).numpy(), 1e-5)


def test_float64_is_double_but_for_the_inverse(inputs):
    inputs = dataclasses.replace(inputs, checkpoints=inputs.checkpoints[:1], precision="float64")
    scores = traker.score_queries(inputs, CONFIG, LocalPool())
    assert scores.dtype == np.float32
    _assert_close(scores, _by_hand(inputs, CONFIG), 1e-5)
    task = traker.TrakerStep(inputs.checkpoints[0], 0, inputs.train, CONFIG, "float64", "cpu")
    features = traker.featurize_shard(task, [np.arange(3)])
    assert features.gradients.dtype == features.out_to_loss.dtype == np.float64


def test_seeds_and_checkpoints_project_differently(inputs):
    first = _features(inputs, CONFIG)
    other_seed = _features(inputs, dataclasses.replace(CONFIG, projection_seed=1))
    task = traker.TrakerStep(inputs.checkpoints[0], 1, inputs.train, CONFIG, "float32", "cpu")
    other_number = traker.featurize_shard(task, [np.arange(60)]).gradients
    np.testing.assert_array_equal(first, _features(inputs, CONFIG))
    assert np.abs(first - other_seed).max() > 0.1 * np.abs(first).max()
    assert np.abs(first - other_number).max() > 0.1 * np.abs(first).max()


def test_gradients_are_those_of_one_example_at_a_time(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture)
    tokens = made_tokens("train", 8)
    model = _model(Checkpoint("made", pretrained, pretrained.weights))
    expected = []
    for row in range(len(tokens)):
        batch = tokens.batch(np.array([row]))
        margin = margins_of(logits_of(model, batch), batch.labels).sum()
        gradients = torch.autograd.grad(margin, list(model.parameters()), allow_unused=True, materialize_grads=True)
        expected.append(torch.cat([gradient.flatten() for gradient in gradients]))
    whole = margin_output.columns(tokens.batch(np.arange(len(tokens))))
    found = margin_output.gradient_computer(model).compute_per_sample_grad(whole)
    found = torch.cat([found[name].flatten(1) for name, _ in model.named_parameters()], dim=1)
    scale = torch.stack(expected).abs().max().item()
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5 * scale)


def test_the_slow_projector_is_warned_of_once(inputs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        traker.score_groups(inputs, CONFIG, LocalPool())
    assert [warning.category for warning in caught] == [RuntimeWarning]
    assert "billion numbers in each of 4 batches" in str(caught[0].message)
    assert caught[0].filename == __file__


def test_workers_of_two_kinds_are_refused(inputs):
    task = traker.TrakerStep(inputs.checkpoints[0], 0, inputs.train, CONFIG, "float32", "cuda")
    with pytest.raises(InputError, match="one that projects by cuda and one by cpu"):
        traker.featurize_shard(task, [np.arange(3)])
