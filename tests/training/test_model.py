"""Base models, their vocabulary, and margins."""

import dataclasses

import numpy as np
import pytest
import torch

from d3m_ray.errors import InputError
from d3m_ray.records import Examples
from d3m_ray.training.batching import tokenize
from d3m_ray.training.model import (
    build_classifier,
    draw_new_modules,
    load_pretrained,
    load_weights,
    logits_of,
    margins_of,
)
from d3m_ray.training.vocabulary import trim_vocabulary


def _logits(pretrained, tokens):
    model = build_classifier(pretrained).eval()
    load_weights(model, pretrained.weights)
    with torch.no_grad():
        return logits_of(model, tokens.batch(np.arange(len(tokens))))


def test_margin_is_the_correct_logit_minus_logsumexp_of_the_others():
    logits = torch.tensor([[1.0, 4.0, 2.0], [0.5, -1.0, 0.0]], dtype=torch.float64)
    margins = margins_of(logits, torch.tensor([1, 2]))
    expected = [4 - np.log(np.exp(1) + np.exp(2)), 0 - np.log(np.exp(0.5) + np.exp(-1))]
    np.testing.assert_allclose(margins.numpy(), expected, rtol=1e-14)


def test_trimming_the_vocabulary_changes_no_logit(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture)
    tokens = {split: made_tokens(split, 4, seed=1) for split in ("train", "val")}
    tokens = {
        name: dataclasses.replace(split, pad_id=pretrained.config["pad_token_id"]) for name, split in tokens.items()
    }
    trimmed, renumbered = trim_vocabulary(pretrained, tokens)
    assert trimmed.config["vocab_size"] < pretrained.config["vocab_size"]
    for split in tokens:
        assert torch.equal(_logits(pretrained, tokens[split]), _logits(trimmed, renumbered[split]))


def test_padding_changes_no_logit(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture)
    tokens = dataclasses.replace(made_tokens(num_examples=6), pad_id=pretrained.config["pad_token_id"])
    alone = torch.cat([_logits(pretrained, tokens.take(np.array([i]))) for i in range(6)])
    torch.testing.assert_close(_logits(pretrained, tokens), alone, rtol=1e-5, atol=1e-6)


def test_new_modules_follow_the_seed_and_the_rest_stays(tiny_base):
    pretrained = tiny_base("bert")
    drawn = []
    for seed in (3, 3, 4):
        model = build_classifier(pretrained)
        load_weights(model, pretrained.weights)
        torch.manual_seed(seed)
        draw_new_modules(model, pretrained)
        drawn.append(model.classifier.weight.detach().clone())
        np.testing.assert_array_equal(
            model.bert.pooler.dense.weight.detach().numpy(), pretrained.weights["bert.pooler.dense.weight"]
        )
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_loading_weights_leaves_the_source_alone(tiny_base):
    pretrained = tiny_base("bert")
    before = pretrained.weights["classifier.weight"].copy()
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    with torch.no_grad():
        model.classifier.weight.add_(1)
    np.testing.assert_array_equal(pretrained.weights["classifier.weight"], before)


def test_the_tiny_model_knows_the_train_words_alone():
    pretrained, tokenizer = load_pretrained("tiny", ["red apple", "Green pear"])
    examples = Examples("val", ["a"], ("green apple plum",), [0], [0])
    ids = tokenize(examples, tokenizer, 16).flat_ids.tolist()
    assert tokenizer.convert_ids_to_tokens(ids) == ["[CLS]", "green", "apple", "[UNK]", "[SEP]"]
    assert pretrained.content_hash() == load_pretrained("tiny", ["green pear", "red apple"])[0].content_hash()


def test_the_hash_sees_weights_and_configuration(tiny_base):
    assert tiny_base("bert").content_hash() == tiny_base("bert").content_hash()
    assert tiny_base("bert").content_hash() != tiny_base("bert", seed=1).content_hash()
    assert tiny_base("bert").content_hash() != tiny_base("bert", dropout=0.1).content_hash()


def test_a_model_that_is_not_there_is_said_with_the_fix(tmp_path):
    with pytest.raises(InputError, match=r"(?s)--model is a transformers folder, a hub name or 'tiny'.*download"):
        load_pretrained(str(tmp_path / "absent"), [])


def test_a_real_encoder_gets_a_fresh_head(minilm_dir):
    pretrained, tokenizer = load_pretrained(str(minilm_dir), [])
    assert pretrained.new_modules == ("classifier",)
    assert pretrained.config["model_type"] == "bert"
    assert tokenizer.pad_token_id == 0


def test_a_real_encoder_has_one_hash_wherever_it_lies(minilm_dir, tmp_path):
    link = tmp_path / "elsewhere"
    link.symlink_to(minilm_dir)
    torch.rand(3)
    pretrained, linked = (load_pretrained(str(folder), [])[0] for folder in (minilm_dir, link))
    assert pretrained.content_hash() == linked.content_hash()
    assert pretrained.name == linked.name == f"{minilm_dir.parent.name}-model-{pretrained.content_hash()[:8]}"
