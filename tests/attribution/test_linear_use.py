"""Layers are found together exactly where the model hands them one tensor, and cast weights give the same bits."""

import numpy as np
import pytest
import torch
from torch import nn

from d3m_ray.attribution.ekfac.layers import tracked_linears
from d3m_ray.attribution.linear_use import cast_weights, use_of_linears
from d3m_ray.training.model import build_classifier, load_weights, logits_of
from d3m_ray.training.precision import autocast


def _by_input(architecture, tiny_base, made_tokens, modules=()) -> list[tuple[str, ...]]:
    model = build_classifier(tiny_base(architecture)).eval()
    batch = made_tokens(num_examples=3).batch(np.arange(3))
    return use_of_linears(model, tracked_linears(model, modules), batch).together


def test_queries_keys_and_values_read_one_input(tiny_base, made_tokens):
    found = _by_input("bert", tiny_base, made_tokens)
    of_layer = [
        tuple(f"bert.encoder.layer.0.attention.self.{name}" for name in ("query", "key", "value")),
        *((f"bert.encoder.layer.0.{name}.dense",) for name in ("attention.output", "intermediate", "output")),
    ]
    assert found[:4] == of_layer
    assert found[-2:] == [("bert.pooler.dense",), ("classifier",)]
    assert len(found) == 2 * 4 + 2


def test_gates_of_feed_forward_layers_do_too(tiny_base, made_tokens):
    found = _by_input("llama", tiny_base, made_tokens, ("model.layers.1.mlp",))
    assert found == [("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"), ("model.layers.1.mlp.down_proj",)]


def test_a_layer_in_several_places_stands_where_it_is_reached_first(tiny_base, made_tokens):
    found = _by_input("albert", tiny_base, made_tokens)
    names = [name for together in found for name in together]
    assert len(names) == len(set(names))
    assert ("query", "key", "value") in [tuple(name.rpartition(".")[2] for name in names) for names in found]


def test_no_hook_is_left(tiny_base, made_tokens):
    model = build_classifier(tiny_base("bert")).eval()
    use_of_linears(model, tracked_linears(model, ()), made_tokens(num_examples=3).batch(np.arange(3)))
    assert not any(module._forward_hooks for module in model.modules())


def _cast(pretrained, batch, precision):
    """The logits before and after the weights are cast, and the model."""
    model = build_classifier(pretrained).eval().requires_grad_(False)
    load_weights(model, pretrained.weights)
    with autocast("cpu", precision):
        before = logits_of(model, batch)
        cast_weights(model, use_of_linears(model, tracked_linears(model, ()), batch))
        return before, logits_of(model, batch), model


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert", "gpt2", "llama"])
def test_cast_weights_give_the_same_bits(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture)
    before, after, model = _cast(pretrained, made_tokens(num_examples=3).batch(np.array([0])), "bfloat16")
    assert torch.equal(before, after)
    assert {p.dtype for name in tracked_linears(model, ()) for p in model.get_submodule(name).parameters()} == {
        torch.bfloat16
    }
    assert model.get_input_embeddings().weight.dtype == torch.float32


def test_what_multiplies_in_float32_stays(tiny_base, made_tokens):
    batch = made_tokens(num_examples=3).batch(np.arange(3))
    _, _, model = _cast(tiny_base("bert"), batch, "float32")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with autocast("cpu", "bfloat16"):
        model.classifier.register_forward_pre_hook(lambda _, args: torch.set_autocast_enabled("cpu", False))
        model.classifier.register_forward_hook(lambda _, args, output: torch.set_autocast_enabled("cpu", True))
        model.bert.pooler.register_forward_hook(lambda _, args, output: output.float())
        cast_weights(model, use_of_linears(model, tracked_linears(model, ()), batch))
    assert model.classifier.weight.dtype == torch.float32
    assert model.bert.pooler.dense.weight.dtype == torch.bfloat16


def test_a_weight_of_two_modules_stays(tiny_base, made_tokens):
    batch = made_tokens(num_examples=3).batch(np.arange(3))
    model = build_classifier(tiny_base("bert")).eval()
    model.extra = nn.Embedding(2, 2)
    model.extra.weight = model.classifier.weight
    with autocast("cpu", "bfloat16"):
        cast_weights(model, use_of_linears(model, ["classifier"], batch))
    assert model.classifier.weight.dtype == torch.float32
