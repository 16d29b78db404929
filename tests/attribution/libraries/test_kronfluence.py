"""Sharded kronfluence gives EK-FAC by its definition, and what the library gives alone; for any partitions."""

import dataclasses
import tempfile

import numpy as np
import pytest
import torch
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch.nn.functional import cross_entropy

from d3m_ray.attribution import shards, worker
from d3m_ray.attribution.ekfac.fisher import drawn_labels, uniform_draws
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.libraries import kronfluence
from d3m_ray.errors import InputError
from d3m_ray.pool import LocalPool
from d3m_ray.training.model import build_classifier, load_weights, logits_of, margins_of

PADDED_LENGTH = 16
ATTENTION = "bert.encoder.layer.1.attention.self"


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    return _inputs(tiny_base("bert"), made_tokens)


def _inputs(pretrained, made_tokens) -> AttributionInputs:
    checkpoints = (Checkpoint(pretrained.config["model_type"], pretrained, pretrained.weights),)
    return AttributionInputs(checkpoints, made_tokens("train", 40), made_tokens("val", 11, 3), 3, "float64")


def _model(checkpoint):
    model = build_classifier(checkpoint.pretrained).eval()
    load_weights(model, checkpoint.weights)
    return model.double()


def _drawn(inputs: AttributionInputs, config: EkfacConfig) -> np.ndarray:
    """The labels that the Fisher matrix is made with, from one batch of all examples."""
    batch = inputs.train.batch(np.arange(len(inputs.train)))
    with torch.no_grad():
        probabilities = logits_of(_model(inputs.checkpoints[0]), batch).softmax(dim=1).numpy()
    return drawn_labels(probabilities, uniform_draws(len(inputs.train), config.label_seed))


def _assert_close(scores: np.ndarray, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(scores, expected, atol=tolerance * np.abs(expected).max(), rtol=0)


# --- by definition ----------------------------------------------------------------------------------------------------


def _backward(model, tokens, name: str, of_logits) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Inputs with a 1 for the bias [T, I], and output gradients [T, O], of one layer for each example alone."""
    inputs, gradients = [], []

    def keep(module, arguments, output):
        inputs.append(torch.cat([arguments[0].detach(), torch.ones_like(arguments[0][..., :1])], -1))
        output.register_hook(gradients.append)

    handle = model.get_submodule(name).register_forward_hook(keep)
    for index in range(len(tokens)):
        of_logits(logits_of(model, tokens.batch(np.array([index]))), index).backward()
    handle.remove()
    return tuple([tensor.reshape(-1, tensor.shape[-1]).numpy() for tensor in kept] for kept in (inputs, gradients))


def _mean_product(rows: list[np.ndarray]) -> np.ndarray:
    stacked = np.concatenate(rows)
    return stacked.T @ stacked / len(stacked)


def _by_definition(inputs: AttributionInputs, config: EkfacConfig, names: list[str]) -> np.ndarray:
    """[N, Q]: EK-FAC of the named layers, one example at a time and without padding, in float64."""
    model = _model(inputs.checkpoints[0])
    drawn, true = torch.from_numpy(_drawn(inputs, config)), torch.from_numpy(inputs.train.labels.copy())
    asked = torch.from_numpy(inputs.queries.labels.copy())
    scores = np.zeros((len(inputs.train), len(inputs.queries)))
    for name in names:
        activations, fisher = _backward(model, inputs.train, name, lambda z, i: cross_entropy(z, drawn[i : i + 1]))
        _, basis_in = np.linalg.eigh(_mean_product(activations))
        _, basis_out = np.linalg.eigh(_mean_product(fisher))

        def rotated(tokens, of_logits, name=name, basis_in=basis_in, basis_out=basis_out):
            parts = zip(*_backward(model, tokens, name, of_logits), strict=True)
            return np.stack([basis_out.T @ gradients.T @ inputs @ basis_in for inputs, gradients in parts])

        eigenvalues = (rotated(inputs.train, lambda z, i: cross_entropy(z, drawn[i : i + 1])) ** 2).mean(axis=0)
        losses = rotated(inputs.train, lambda z, i: cross_entropy(z, true[i : i + 1]))
        margins = rotated(inputs.queries, lambda z, i: margins_of(z, asked[i : i + 1]).sum())
        damped = eigenvalues + config.damping * eigenvalues.mean()
        scores += np.einsum("noi,qoi->nq", -losses / damped, margins)  # a step down each loss, and the margin's rise
    return scores


@pytest.mark.parametrize("damping", [0.1, 1.0])
@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("classifier", ["classifier"]),
        ("bert.encoder.layer.0.output", ["bert.encoder.layer.0.output.dense"]),
        (ATTENTION, [f"{ATTENTION}.{name}" for name in ("query", "key", "value")]),
    ],
    ids=["classifier", "tokens", "several"],
)
def test_scores_follow_the_definition(inputs, module, names, damping):
    config = EkfacConfig(modules=(module,), damping=damping)
    _assert_close(kronfluence.score_queries(inputs, config, LocalPool()), _by_definition(inputs, config, names))


def test_an_example_raises_its_own_margin(inputs):
    itself = dataclasses.replace(inputs, queries=dataclasses.replace(inputs.train, split="val"), num_groups=2)
    assert (np.diag(kronfluence.score_queries(itself, EkfacConfig(), LocalPool())) > 0).all()


# --- by the library alone ---------------------------------------------------------------------------------------------


class PlainTask(Task):
    """As in the library's documentation, but with labels that were drawn beforehand."""

    def compute_train_loss(self, batch, model, sample=False):
        return cross_entropy(self._logits(batch, model), batch["drawn" if sample else "labels"], reduction="sum")

    def compute_measurement(self, batch, model):
        return -margins_of(self._logits(batch, model), batch["labels"]).sum()

    def get_attention_mask(self, batch):
        return batch["attention_mask"]

    def _logits(self, batch, model):
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def _padded_rows(tokens, drawn: np.ndarray) -> list[dict[str, torch.Tensor]]:
    batch = tokens.batch(np.arange(len(tokens)))
    padding = (0, PADDED_LENGTH - batch.input_ids.shape[1])
    columns = {
        "input_ids": torch.nn.functional.pad(batch.input_ids, padding, value=tokens.pad_id),
        "attention_mask": torch.nn.functional.pad(batch.attention_mask, padding),
        "labels": batch.labels,
        "drawn": torch.tensor(drawn),
    }
    return [{name: column[i] for name, column in columns.items()} for i in range(len(tokens))]


def _by_the_library(inputs: AttributionInputs, config: EkfacConfig, folder) -> np.ndarray:
    """[N, Q]: the library's own pairwise scores in one process, every text padded alike, in float64."""
    task = PlainTask()
    model = prepare_model(_model(inputs.checkpoints[0]), task)
    analyzer = Analyzer("plain", model, task, disable_tqdm=True, output_dir=folder)
    factor_dtypes = ("activation_covariance_dtype", "gradient_covariance_dtype", "lambda_dtype")
    score_dtypes = ("precondition_dtype", "score_dtype")
    factors, scores = (
        dict.fromkeys((*names, "per_sample_gradient_dtype"), torch.float64) for names in (factor_dtypes, score_dtypes)
    )
    train = _padded_rows(inputs.train, _drawn(inputs, config))
    analyzer.fit_all_factors("factors", train, per_device_batch_size=7, factor_args=FactorArguments(**factors))
    analyzer.compute_pairwise_scores(
        "scores", "factors", _padded_rows(inputs.queries, inputs.queries.labels), train,
        per_device_query_batch_size=6, per_device_train_batch_size=7,
        score_args=ScoreArguments(damping_factor=None, **scores),
    )  # fmt: skip
    return analyzer.load_pairwise_scores("scores")["all_modules"].T.numpy()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.cuda.amp.GradScaler:FutureWarning")
def test_partitions_over_a_pool_give_what_the_library_gives_alone(inputs, tmp_path, monkeypatch):
    expected = _by_the_library(inputs, EkfacConfig(damping=0.1), tmp_path)  # its own heuristic
    monkeypatch.setattr(shards, "MIN_SHARD_TOKENS", 60)
    monkeypatch.setattr(kronfluence, "QUERY_BATCH_BYTES", 1)  # one query at a time
    monkeypatch.setattr(kronfluence, "TRAIN_PER_QUERY_TOKENS", 1)
    scored = []
    pool = LocalPool(lambda label, num_done, num_steps: scored.append((label, num_steps)))
    scores = kronfluence.score_queries(inputs, EkfacConfig(damping=0.1), pool)
    _assert_close(scores, expected)
    num_steps = {label.split(",")[0]: number for label, number in scored}
    assert num_steps["kronfluence covariances"] == num_steps["kronfluence Lambda"] > 3
    assert num_steps["kronfluence scores"] > 6


# --- invariance -------------------------------------------------------------------------------------------------------


def test_float32_is_near_float64(inputs):
    config = EkfacConfig()
    wide = kronfluence.score_groups(inputs, config, LocalPool())
    narrow = kronfluence.score_groups(dataclasses.replace(inputs, precision="float32"), config, LocalPool())
    _assert_close(narrow, wide, 1e-3)


def test_scores_are_the_mean_over_checkpoints(inputs, tiny_base):
    pretrained = tiny_base("bert", seed=1)
    other = Checkpoint("another", pretrained, pretrained.weights)
    separate = [
        kronfluence.score_groups(dataclasses.replace(inputs, checkpoints=(one,)), EkfacConfig(), LocalPool())
        for one in (*inputs.checkpoints, other)
    ]
    both = dataclasses.replace(inputs, checkpoints=(*inputs.checkpoints, other))
    _assert_close(kronfluence.score_groups(both, EkfacConfig(), LocalPool()), np.mean(separate, axis=0))
    assert not np.allclose(*separate)


@pytest.mark.parametrize(
    "other", [EkfacConfig(damping=0.2), EkfacConfig(label_seed=1), EkfacConfig(modules=("bert.encoder",))],
    ids=["damping", "labels", "modules"],
)  # fmt: skip
def test_a_later_scoring_reuses_nothing_of_other_settings(inputs, other):
    first = kronfluence.score_groups(inputs, EkfacConfig(), LocalPool())
    later = kronfluence.score_groups(inputs, other, LocalPool())
    worker._kept.clear()
    np.testing.assert_array_equal(later, kronfluence.score_groups(inputs, other, LocalPool()))
    assert not np.allclose(first, later)


def test_nothing_is_left_on_disk_or_printed(inputs, tmp_path, monkeypatch, capfd):
    temporary, current = tmp_path / "temporary", tmp_path / "current"
    temporary.mkdir()
    current.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(current)
    kronfluence.score_groups(inputs, EkfacConfig(), LocalPool())
    assert set(tmp_path.rglob("*")) == {temporary, current}
    assert capfd.readouterr() == ("", "")


def test_an_unknown_module_is_an_error_before_any_work(inputs):
    events = []
    with pytest.raises(InputError, match=r"received 'bert\.head'"):
        kronfluence.score_groups(inputs, EkfacConfig(modules=("bert.head",)), LocalPool(lambda *e: events.append(e)))
    assert events == []
