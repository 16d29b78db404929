"""The masks of a GPU, tried on a CPU: what attends to what is transformers' own, and no mask is read."""

import dataclasses

import numpy as np
import pytest
import torch
from counted_model import Waits
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from d3m_ray.training.device_masks import ATTENTION, replace_masks
from d3m_ray.training.model import build_classifier, load_weights, logits_of


def stock(pretrained) -> PreTrainedModel:
    """Transformers' own model, which a GPU has."""
    config = AutoConfig.for_model(**pretrained.config)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    load_weights(model, pretrained.weights)
    return model


@pytest.fixture
def texts(made_tokens):
    tokens = dataclasses.replace(made_tokens(num_examples=30, end=2), pad_id=1)
    whole = np.flatnonzero(tokens.lengths == tokens.lengths[0])
    return tokens, {"padded": np.array([0, 1, 2, 3]), "whole": whole}


def test_logits_are_those_of_transformers_and_no_mask_is_read(tiny_base, texts, architecture):
    pretrained = tiny_base(architecture)
    tokens, batches = texts
    tokens = dataclasses.replace(tokens, pad_id=pretrained.config["pad_token_id"])
    model, ours = stock(pretrained), stock(pretrained)
    replace_masks(ours)
    is_replaced = ours.config._attn_implementation == ATTENTION
    assert is_replaced == (model.config._attn_implementation == "sdpa")
    for name, positions in batches.items():
        batch = tokens.batch(positions)
        assert batch.is_padded == (name == "padded")
        with torch.inference_mode():
            expected = logits_of(model, batch)
            with Waits() as waits:
                found = logits_of(ours, batch)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
        if is_replaced:
            assert waits.reads == []


def test_a_batch_without_padding_has_no_mask_and_torch_its_fast_kernels(tiny_base, texts):
    seen: list[torch.Tensor | None] = []
    model = stock(tiny_base("bert"))
    replace_masks(model)
    for layer in model.bert.encoder.layer:
        layer.register_forward_pre_hook(lambda _, args, kwargs: seen.append(args[1]), with_kwargs=True)
    tokens, batches = texts
    logits_of(model, tokens.batch(batches["whole"]))
    assert seen == [None] * len(model.bert.encoder.layer)
    seen.clear()
    logits_of(model, dataclasses.replace(tokens.batch(batches["whole"]), is_padded=True))
    assert len(seen) == len(model.bert.encoder.layer)
    assert all(mask is not None and mask.all() for mask in seen), "what may have padding has a mask"


def test_a_model_that_is_called_by_others_has_transformers_own_masks(tiny_base, texts):
    """Nobody said of that batch whether it is padded."""
    model = stock(tiny_base("bert"))
    replace_masks(model)
    tokens, batches = texts
    batch = tokens.batch(batches["padded"])
    with Waits() as waits:
        logits = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    assert waits.reads
    torch.testing.assert_close(logits, logits_of(model, batch))


def test_models_have_them_on_a_gpu_alone(tiny_base, monkeypatch):
    monkeypatch.setattr(PreTrainedModel, "to", lambda self, device: self)
    assert build_classifier(tiny_base("bert"), "cuda").config._attn_implementation == ATTENTION
    assert build_classifier(tiny_base("bert"), "cpu").config._attn_implementation != ATTENTION
