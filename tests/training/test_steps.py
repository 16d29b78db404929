"""Pairing: a fit without some examples is the full split's fit without them, batch by batch and mask by mask."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn
from transformers import DebertaConfig, DebertaForSequenceClassification, get_linear_schedule_with_warmup

import d3m_ray.training.fine_tuning as training
from d3m_ray.training.fine_tuning import fine_tune
from d3m_ray.training.model import build_classifier, load_weights
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.steps import (
    Step,
    can_cut,
    learning_rate_at,
    seed_step,
    step_logits,
    steps_per_epoch,
    training_steps,
)

COMMON = TrainingConfig(num_epochs=2, learning_rate=1e-3, batch_size=4, precision="float32", final_model="last")
INDEPENDENT = dataclasses.replace(COMMON, pairing="independent")
LENGTHS = np.random.default_rng(0).integers(3, 13, size=22)


def _steps(kept, config, num_steps=12, weights=None):
    steps = training_steps(LENGTHS, np.asarray(kept), config, 3, weights)
    return [next(steps) for _ in range(num_steps)]


def _without(*removed, num_train=22):
    return np.delete(np.arange(num_train), removed)


def _weights(model) -> bytes:
    return b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())


@pytest.fixture
def after_each_step(monkeypatch) -> list[bytes]:
    """The weights of the model after each optimiser step."""
    seen, descend = [], training._descend

    def watching(model, *rest):
        loss = descend(model, *rest)
        seen.append(_weights(model))
        return loss

    monkeypatch.setattr(training, "_descend", watching)
    return seen


# --- the plan ---------------------------------------------------------------------------------------------------------


def test_under_common_pairing_batches_are_the_full_splits_less_what_is_removed():
    for whole, step in zip(_steps(_without(), COMMON), _steps(_without(0, 7, 21), COMMON), strict=True):
        np.testing.assert_array_equal(step.batch, whole.batch)
        assert step.positions.tolist() == [i for i in whole.batch if i not in (0, 7, 21)]
        assert (step.number, whole.is_whole) == (whole.number, True)
    assert not all(step.is_whole for step in _steps(_without(0, 7, 21), COMMON))


def test_under_independent_pairing_batches_are_of_what_is_kept_alone():
    steps = _steps(_without(0, 7, 21), INDEPENDENT, num_steps=5)
    assert all(step.is_whole for step in steps)
    assert sorted(np.concatenate([step.batch for step in steps])) == _without(0, 7, 21).tolist()


def test_both_pairings_plan_the_full_split_alike():
    for common, independent in zip(_steps(_without(), COMMON), _steps(_without(), INDEPENDENT), strict=True):
        np.testing.assert_array_equal(common.positions, independent.positions)


@pytest.mark.parametrize(("config", "expected"), [(COMMON, 6), (INDEPENDENT, 3)])
def test_steps_and_schedule_stay_under_common_pairing_only(config, expected):
    assert steps_per_epoch(22, 11, config) == expected
    assert steps_per_epoch(22, 11, dataclasses.replace(config, step_matched=True)) == 6


def test_weighted_draws_are_of_the_same_examples_less_what_is_removed():
    weights = np.arange(22.0)
    for whole, step in zip(
        _steps(_without(), COMMON, weights=weights), _steps(_without(20), COMMON, weights=weights), strict=True
    ):
        assert step.positions.tolist() == [i for i in whole.batch if i != 20]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.99])
def test_the_learning_rate_rises_and_falls_as_transformers_has_it(share):
    config = dataclasses.replace(COMMON, warmup_share=share)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.learning_rate)
    schedule = get_linear_schedule_with_warmup(optimizer, round(share * 12), 12)
    for number in range(12):
        assert learning_rate_at(number, 12, config) == optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()


# --- dropout ----------------------------------------------------------------------------------------------------------


def test_what_stays_of_a_batch_gives_what_it_gives_in_the_whole_batch(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture, dropout=0.2)
    train = dataclasses.replace(made_tokens("train", 9), pad_id=pretrained.config["pad_token_id"])
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    cuts = can_cut(model, train)
    batch = np.array([8, 2, 5, 0, 3])
    seed_step(3, 1)
    expected, _ = step_logits(model, train, Step(1, batch, np.arange(5)), "float32", cuts)
    for rows in ([0, 2, 4], [3], [1, 2, 3, 4]):
        seed_step(3, 1)
        logits, labels = step_logits(model, train, Step(1, batch, np.array(rows)), "float32", cuts)
        torch.testing.assert_close(logits, expected[rows], rtol=1e-4, atol=1e-5)
        assert labels.tolist() == train.labels[batch[rows]].tolist()
    seed_step(3, 2)
    assert not torch.allclose(step_logits(model, train, Step(2, batch, np.arange(5)), "float32", cuts)[0], expected)


def test_a_model_whose_dropout_is_ours_is_cut_and_another_is_not(tiny_base, made_tokens):
    train, pretrained = made_tokens("train", 9), tiny_base("bert", dropout=0.2)
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    assert can_cut(model, train)
    model.dropout = nn.Dropout(0.2)
    assert not can_cut(model, train)


def test_dropout_on_a_table_of_as_many_rows_as_a_part_has_examples_is_not_cut(made_tokens):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    relative = {"relative_attention": True, "max_relative_positions": 2, "pos_att_type": ["c2p", "p2c"]}
    train, config = (
        made_tokens("train", 9),
        DebertaConfig(vocab_size=1000, max_position_embeddings=32, **sizes, **relative),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = DebertaForSequenceClassification(config).state_dict()
    pretrained = PretrainedModel(
        "deberta", config.to_dict(), {name: value.numpy() for name, value in weights.items()}, ()
    )
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    cuts, batch, kept = can_cut(model, train), np.array([8, 2, 5, 0, 3]), np.array([0, 2, 3, 4])
    seed_step(3, 1)
    expected, _ = step_logits(model, train, Step(1, batch, np.arange(5)), "float32", cuts)
    seed_step(3, 1)
    logits, _ = step_logits(model, train, Step(1, batch, kept), "float32", cuts)  # the table has 2 * 2 rows
    torch.testing.assert_close(logits, expected[kept], rtol=1e-4, atol=1e-5)


def test_dropout_that_the_logits_do_not_show_is_not_cut(tiny_base, made_tokens):
    train, pretrained = made_tokens("train", 9), tiny_base("bert", dropout=0.2)
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    model.dropout = nn.Dropout(0.2)
    nn.init.zeros_(model.classifier.weight)
    assert not can_cut(model, train)
    nn.init.constant_(model.classifier.bias, 1.0)
    assert not can_cut(model, train)


def test_only_what_is_kept_goes_through_a_model_that_can_be_cut(tiny_base, made_tokens):
    train, pretrained, sizes = made_tokens("train", 9), tiny_base("bert"), []
    model = build_classifier(pretrained)
    model.register_forward_pre_hook(lambda _, args, options: sizes.append(len(options["input_ids"])), with_kwargs=True)
    for cuts in (True, False):
        step_logits(model, train, Step(0, np.array([4, 2, 7]), np.array([1])), "float32", cuts)
    assert sizes == [1, 3]


# --- fits -------------------------------------------------------------------------------------------------------------


def test_removing_nothing_is_the_full_splits_fit_to_the_bit(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    fits = []
    for config, kept in ((COMMON, None), (COMMON, _without()), (INDEPENDENT, _without())):
        model = build_classifier(pretrained)
        fine_tune(model, pretrained, train, val, config, 3, kept)
        fits.append(_weights(model))
    assert fits[0] == fits[1] == fits[2]


@pytest.mark.parametrize("is_cut", [True, False])
def test_removal_changes_no_update_before_the_batch_that_had_the_example(
    is_cut, tiny_base, made_tokens, after_each_step, monkeypatch
):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    config = dataclasses.replace(COMMON, num_epochs=1)
    if not is_cut:
        monkeypatch.setattr(training, "can_cut", lambda *_: False)
    steps = training_steps(train.lengths, _without(), config, 3)
    fourth = [next(steps) for _ in range(4)][3]
    for removed in ((), fourth.batch[:1]):
        fine_tune(build_classifier(pretrained), pretrained, train, val, config, 3, _without(*removed))
    full, without = after_each_step[:6], after_each_step[6:]
    assert full[:3] == without[:3]
    assert full[3] != without[3]


def test_both_ways_to_leave_examples_out_train_the_same(tiny_base, made_tokens, monkeypatch):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    models = []
    for _ in range(2):
        models.append(build_classifier(pretrained))
        fine_tune(models[-1], pretrained, train, val, COMMON, 3, _without(2, 3, 11, 12, 20))
        monkeypatch.setattr(training, "can_cut", lambda *_: False)
    for name, weight in models[0].state_dict().items():
        torch.testing.assert_close(weight, models[1].state_dict()[name], rtol=1e-3, atol=1e-5, msg=name)


def test_a_batch_that_keeps_nothing_is_a_step_on_no_gradient(tiny_base, made_tokens, after_each_step):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    steps = training_steps(train.lengths, _without(), COMMON, 3)
    second = [next(steps) for _ in range(2)][1]
    fit = fine_tune(build_classifier(pretrained), pretrained, train, val, COMMON, 3, _without(*second.batch))
    assert fit.num_steps == 12
    assert after_each_step[0] != after_each_step[1]  # momentum goes on
    assert np.isfinite(np.frombuffer(after_each_step[-1], np.float32)).mean() > 0.99  # ids among the buffers


def test_fits_of_a_seed_are_closer_under_common_pairing(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 60), made_tokens("val", 9)

    def fitted(config, seed, kept=None):
        model = build_classifier(pretrained)
        fine_tune(model, pretrained, train, val, config, seed, kept)
        return torch.cat([p.detach().flatten() for p in model.parameters()])

    def moved(config):
        return [float((fitted(config, s, _without(9, num_train=60)) - fitted(config, s)).norm()) for s in range(3)]

    assert max(moved(COMMON)) < min(moved(INDEPENDENT)) / 2
