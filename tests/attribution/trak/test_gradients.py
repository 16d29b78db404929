"""Projected per-example gradients against one-example backward passes in float64, for every kind of parameter."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from d3m_ray.attribution.trak.gradients import ProjectedGradients
from d3m_ray.attribution.trak.projection import SignProjection
from d3m_ray.training.model import build_classifier, load_weights, margins_of

PROJECTION = SignProjection(36, seed=1)


def _float64_model(pretrained):
    model = build_classifier(pretrained).double().eval()
    load_weights(model, pretrained.weights)
    with torch.no_grad():  # biases and norms start at 0 and 1: make every parameter tell
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)).double())
    return model


def _projected_by_hand(model: nn.Module, name: str) -> torch.Tensor:
    """[36] projection of the gradients that a backward pass left in one layer's parameters, through dense matrices."""
    layer = model.get_submodule(name)
    k_out, k_in = PROJECTION.factors
    if isinstance(layer, nn.LayerNorm) or type(layer).__name__.endswith("RMSNorm"):
        total = torch.zeros(36, dtype=torch.float64)
        for kind, parameter in layer.named_parameters():
            rows, signs = PROJECTION.hashing(f"{name}.{kind}", parameter.numel())
            for row, sign, slope in zip(rows, signs, parameter.grad, strict=True):
                total[row] += sign * slope
        return total
    if isinstance(layer, nn.Embedding):
        gradient = layer.weight.grad.T
        right = PROJECTION.signs(f"{name}.in", k_in, layer.num_embeddings)
    elif isinstance(layer, Conv1D):
        gradient = torch.cat([layer.weight.grad.T, layer.bias.grad[:, None]], dim=1)
        right = PROJECTION.signs(f"{name}.in", k_in, layer.nx + 1)
    else:
        columns = [layer.weight.grad] + ([layer.bias.grad[:, None]] if layer.bias is not None else [])
        gradient = torch.cat(columns, dim=1)
        right = PROJECTION.signs(f"{name}.in", k_in, layer.in_features + 1)[:, : gradient.shape[1]]
    left = PROJECTION.signs(f"{name}.out", k_out, gradient.shape[0])
    return (torch.kron(left.double(), right.double()) @ gradient.reshape(-1)).reshape(-1) / 6


def _one_example_gradients(model, tokens) -> torch.Tensor:
    rows = []
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))  # of a tie, the first
    for index in range(len(tokens)):
        batch = tokens.batch(np.array([index]))
        model.zero_grad()
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        margins_of(logits, batch.labels).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        rows.append(sum(_projected_by_hand(model, name) for name in owners))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "architecture", ["bert", "roberta", "distilbert", "modernbert", "albert", "bart", "gpt2", "llama", "gemma"]
)
def test_hooked_gradients_are_one_example_gradients(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture)
    model = _float64_model(pretrained)
    tokens = made_tokens(num_examples=6, end=pretrained.config["eos_token_id"])
    tokens = dataclasses.replace(tokens, pad_id=pretrained.config["pad_token_id"])
    expected = _one_example_gradients(model, tokens)
    features, margins = ProjectedGradients(model, PROJECTION)(tokens.batch(np.arange(6)))
    rounding = 1e-9 if model.config.model_type not in ("llama", "gemma") else 1e-5  # whose norms compute in float32
    torch.testing.assert_close(features, expected, rtol=rounding, atol=1e-3 * rounding)
    assert expected.abs().min() > 0
    assert margins.shape == (6,)


def test_gradients_do_not_depend_on_the_batch(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture)
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    gradients_of = ProjectedGradients(model, PROJECTION)
    tokens = dataclasses.replace(made_tokens(num_examples=6), pad_id=pretrained.config["pad_token_id"])
    whole, _ = gradients_of(tokens.batch(np.arange(6)))
    alone = torch.cat([gradients_of(tokens.batch(np.array([index])))[0] for index in range(6)])
    torch.testing.assert_close(whole, alone, rtol=1e-3, atol=1e-5 * float(alone.abs().max()))


def test_weights_stay_frozen_and_without_gradients(tiny_base, made_tokens):
    model = build_classifier(tiny_base("bert"))
    ProjectedGradients(model, PROJECTION)(made_tokens(num_examples=3).batch(np.arange(3)))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_bfloat16_gradients_point_the_same_way(tiny_base, made_tokens):
    pretrained, batch = tiny_base("bert"), made_tokens(num_examples=8).batch(np.arange(8))
    features = []
    for precision in ("float32", "bfloat16"):
        model = build_classifier(pretrained)
        load_weights(model, pretrained.weights)
        features.append(ProjectedGradients(model, PROJECTION, precision)(batch)[0])
    assert features[1].dtype == torch.float32
    assert torch.cosine_similarity(*features, dim=1).min() > 0.995


def test_a_layer_that_reads_another_tensor_than_at_first_is_still_projected_by_its_own(tiny_base, made_tokens):
    """Which layers read one input together is found once, and held against every batch."""
    pretrained, batch = tiny_base("bert"), made_tokens(num_examples=4).batch(np.arange(4))
    model = _float64_model(pretrained)
    gradients_of = ProjectedGradients(model, PROJECTION)
    expected, _ = gradients_of(batch)
    key = model.bert.encoder.layer[0].attention.self.key
    key.register_forward_pre_hook(lambda _, args: (args[0].clone(),))
    found, _ = gradients_of(batch)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


class Routed(nn.Module):
    """A pooler behind a layer that long texts alone go through."""

    def __init__(self, pooler: nn.Module) -> None:
        super().__init__()
        self.pooler = pooler
        self.of_long = nn.Linear(pooler.dense.in_features, pooler.dense.in_features)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.pooler(states + self.of_long(states) if states.shape[1] > 6 else states)


def test_a_layer_that_the_first_example_does_not_reach_is_projected_for_those_that_do(tiny_base, made_tokens):
    pretrained, tokens = tiny_base("bert"), made_tokens(num_examples=12)
    model = _float64_model(pretrained)
    model.bert.pooler = Routed(model.bert.pooler).double()
    long = tokens.take(np.flatnonzero(tokens.lengths > 6))
    expected = _one_example_gradients(model, long)
    gradients_of = ProjectedGradients(model, PROJECTION)
    gradients_of(tokens.batch(np.flatnonzero(tokens.lengths < 6)))
    found, _ = gradients_of(long.batch(np.arange(len(long))))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_a_parameter_without_a_rule_is_refused(tiny_base):
    model = build_classifier(tiny_base("bert"))
    model.bert.encoder.extra = nn.Conv1d(2, 2, 1)
    with pytest.raises(ValueError, match=r"projects the parameters of Linear, .*; bert\.encoder\.extra is a Conv1d"):
        ProjectedGradients(model, PROJECTION)


def test_a_shared_parameter_is_refused(tiny_base):
    model = build_classifier(tiny_base("bert"))
    model.classifier.weight = model.bert.embeddings.token_type_embeddings.weight
    with pytest.raises(ValueError, match="share one"):
        ProjectedGradients(model, PROJECTION)
