"""Fine-tuning: held against transformers' Trainer, exact under its seed, and its choice of the final model."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from d3m_ray.training.batching import TokenizedExamples, training_batches
from d3m_ray.training.fine_tuning import Objective, fine_tune, predict, seeded
from d3m_ray.training.model import build_classifier, draw_new_modules, load_weights, logits_of
from d3m_ray.training.settings import TrainingConfig

CONFIG = TrainingConfig(num_epochs=2, learning_rate=1e-3, batch_size=4, precision="float32", final_model="last")


class _Rows(Dataset):
    def __init__(self, tokens):
        self.tokens = tokens

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, index):
        return index


class _Epochs:
    """The batches of each epoch in turn, as a batch sampler."""

    def __init__(self, epochs):
        self.epochs = epochs
        self.following = iter(epochs)

    def __len__(self):
        return len(self.epochs[0])

    def __iter__(self):
        return iter(next(self.following))


class _SameBatches(Trainer):
    """Trainer over the very batches that fine_tune takes."""

    def get_train_dataloader(self):
        tokens = self.train_dataset.tokens
        epochs = [list(training_batches(tokens.lengths, 4, np.random.default_rng([5, epoch]))) for epoch in range(2)]

        def collate(indices):
            batch = tokens.batch(np.array(indices))
            return {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": batch.labels}

        return DataLoader(self.train_dataset, batch_sampler=_Epochs(epochs), collate_fn=collate)


def test_the_loop_is_the_trainers(tiny_base, made_tokens, tmp_path):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    ours = build_classifier(pretrained)
    fine_tune(ours, pretrained, train, val, CONFIG, seed=5)

    theirs = build_classifier(pretrained)
    load_weights(theirs, pretrained.weights)
    with seeded(5, "cpu"):
        draw_new_modules(theirs, pretrained)
    arguments = TrainingArguments(
        output_dir=str(tmp_path), num_train_epochs=2, learning_rate=1e-3, weight_decay=0.01, max_grad_norm=1.0,
        lr_scheduler_type="linear", per_device_train_batch_size=4, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    _SameBatches(theirs, arguments, train_dataset=_Rows(train)).train()
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], weight, rtol=1e-4, atol=1e-6, msg=name)
    assert not np.allclose(theirs.classifier.weight.detach().numpy(), pretrained.weights["classifier.weight"])


def test_one_seed_gives_the_same_bits_whatever_ran_before(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    model = build_classifier(pretrained)
    margins = []
    for seed in (1, 1, 2):
        torch.rand(17)
        fine_tune(model, pretrained, train, val, CONFIG, seed)
        margins.append(predict(model, val, "float32").margins)
    np.testing.assert_array_equal(margins[0], margins[1])
    assert not np.array_equal(margins[0], margins[2])


def test_a_fit_after_one_that_was_stopped_has_the_same_bits(tiny_base, made_tokens, monkeypatch):
    """As by Ctrl-C in a notebook, whose process and model go on: the gradients of its last step are there yet."""
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train"), made_tokens("val")
    model, config = build_classifier(pretrained), TrainingConfig(num_epochs=2, batch_size=4)

    def weights() -> list[torch.Tensor]:
        fine_tune(model, pretrained, train, val, config, seed=3)
        return [value.clone() for value in model.state_dict().values()]

    undisturbed = weights()
    with monkeypatch.context() as patched:
        patched.setattr(torch.nn.utils, "clip_grad_norm_", _stops)
        with pytest.raises(KeyboardInterrupt):
            weights()
    assert all(torch.equal(*pair) for pair in zip(weights(), undisturbed, strict=True))


def _stops(*_: object) -> None:
    raise KeyboardInterrupt


def test_every_architecture_learns_what_it_is_shown(architecture, tiny_base, made_tokens):
    pretrained = tiny_base(architecture, dropout=0.1)
    train = dataclasses.replace(made_tokens("train", 16), pad_id=pretrained.config["pad_token_id"])
    model = build_classifier(pretrained)
    config = dataclasses.replace(CONFIG, num_epochs=40, learning_rate=3e-3)
    fit = fine_tune(model, pretrained, train, train, config, seed=0)
    assert fit.num_steps == 160
    assert (predict(model, train, "float32").margins > 0).mean() > 0.9


def test_training_leaves_the_callers_random_stream_alone(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 8), made_tokens("val", 4)
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    fine_tune(build_classifier(pretrained), pretrained, train, val, CONFIG, seed=0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("rule", ["val_accuracy", "val_wga"])
def test_the_chosen_epoch_is_the_best_of_all(rule, tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 24), made_tokens("val", 24)
    figures = []
    model = build_classifier(pretrained)
    config = TrainingConfig(num_epochs=6, learning_rate=3e-3, batch_size=4, precision="float32", final_model=rule)
    watched = _watch_epochs(model, pretrained, train, val, config, figures)
    best = max(range(6), key=lambda epoch: (figures[epoch][rule], -epoch))
    assert watched.chosen_epoch == best + 1
    np.testing.assert_array_equal(predict(model, val, "float32").margins, figures[best]["margins"])


def _watch_epochs(model, pretrained, train, val, config, figures):
    import d3m_ray.training.fine_tuning as training

    original = training.predict

    def watching(model, examples, precision):
        predictions = original(model, examples, precision)
        correct = predictions.margins > 0
        groups = [correct[val.groups == group].mean() for group in range(2)]
        figures.append({"val_accuracy": correct.mean(), "val_wga": min(groups), "margins": predictions.margins})
        return predictions

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "predict", watching)
        return fine_tune(model, pretrained, train, val, config, seed=0)


def test_predictions_do_not_depend_on_the_batch(tiny_base, made_tokens, architecture):
    pretrained = tiny_base(architecture)
    val = dataclasses.replace(made_tokens("val", 20), pad_id=pretrained.config["pad_token_id"])
    model = build_classifier(pretrained)
    load_weights(model, pretrained.weights)
    whole = predict(model, val, "float32")
    alone = [predict(model, val.take(np.array([i])), "float32").margins[0] for i in range(20)]
    np.testing.assert_allclose(whole.margins, alone, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole.probabilities > 0.5, (whole.margins > 0) == (val.labels == 1))


def test_many_labels_are_predicted_by_the_largest_logit(tiny_base, made_tokens):
    pretrained, examples = tiny_base("bert", num_labels=3), made_tokens("val", 30, num_labels=3)
    model = build_classifier(pretrained)
    weights = {**pretrained.weights, "classifier.weight": 20 * pretrained.weights["classifier.weight"]}
    load_weights(model, weights)
    found = predict(model, examples, "float32")
    batch = examples.batch(np.arange(30))
    with torch.no_grad():
        logits = model.eval()(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    np.testing.assert_array_equal(found.predicted, logits.argmax(dim=1))
    losses = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="none")
    np.testing.assert_allclose(found.losses, losses, rtol=1e-3, atol=1e-5)
    assert np.isnan(found.probabilities).all()
    assert len(set(found.predicted)) > 1


def test_a_tie_is_wrong_whatever_the_label(tiny_base, made_tokens):
    pretrained, examples = tiny_base("bert"), made_tokens("val", 6)
    model = build_classifier(pretrained)
    load_weights(model, {**pretrained.weights, "classifier.weight": 0 * pretrained.weights["classifier.weight"]})
    found = predict(model, examples, "float32")
    assert not found.is_correct.any()
    np.testing.assert_array_equal(found.predicted, 1 - examples.labels)


def test_nothing_to_train_on_is_refused(tiny_base, made_tokens):
    pretrained = tiny_base("bert")
    with pytest.raises(ValueError, match="at least one train example"):
        fine_tune(
            build_classifier(pretrained), pretrained, made_tokens("train", 0), made_tokens("val", 4), CONFIG, seed=0
        )


def test_a_loss_that_is_not_finite_is_said(tiny_base, made_tokens):
    pretrained = tiny_base("bert")
    config = TrainingConfig(num_epochs=3, learning_rate=1e30, batch_size=4, precision="float32")
    with pytest.raises(FloatingPointError, match="lower --learning-rate"):
        fine_tune(
            build_classifier(pretrained), pretrained, made_tokens("train", 24), made_tokens("val", 4), config, seed=0
        )


# --- step matching ----------------------------------------------------------------------------------------------------

MATCHED = dataclasses.replace(CONFIG, step_matched=True, pairing="independent")
KEPT = np.array([1, 4, 5, 11, 20])


@pytest.fixture
def events(monkeypatch) -> list[tuple[str, list[int]]]:
    """The batches that the model reads, in order: (split, positions)."""
    seen = []
    original = TokenizedExamples.batch

    def spying(examples, positions, *options):
        seen.append((examples.split, positions.tolist()))
        return original(examples, positions, *options)

    monkeypatch.setattr(TokenizedExamples, "batch", spying)
    return seen


@pytest.mark.parametrize("final_model", ["last", "val_accuracy"])
def test_the_full_split_is_trained_alike_with_and_without_step_matching(final_model, tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert", dropout=0.1), made_tokens("train", 22), made_tokens("val", 9)
    model, outcomes = build_classifier(pretrained), []
    for step_matched in (False, True):
        config = dataclasses.replace(CONFIG, num_epochs=4, final_model=final_model, step_matched=step_matched)
        fit = fine_tune(model, pretrained, train, val, config, seed=3)
        outcomes.append((fit.num_steps, fit.chosen_epoch, predict(model, val, "float32").margins.tobytes()))
    assert outcomes[0] == outcomes[1]


def test_a_small_kept_set_takes_the_full_number_of_steps_in_fresh_passes(tiny_base, made_tokens, events):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    fit = fine_tune(build_classifier(pretrained), pretrained, train, val, MATCHED, seed=3, kept=KEPT)
    assert fit.num_steps == len(events) == 2 * 6
    passes = [list(training_batches(train.lengths[KEPT], 4, np.random.default_rng([3, number]))) for number in range(6)]
    assert [positions for _, positions in events] == [KEPT[batch].tolist() for batches in passes for batch in batches]
    assert len({str(batches) for batches in passes}) > 1


def test_a_step_matched_epoch_ends_where_the_full_splits_would(tiny_base, made_tokens, events):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    config = dataclasses.replace(MATCHED, num_epochs=3, final_model="val_accuracy")
    fine_tune(build_classifier(pretrained), pretrained, train, val, config, seed=3, kept=KEPT)
    assert [split for split, _ in events] == (["train"] * 6 + ["val"]) * 3


def test_the_full_number_is_for_step_matching_only(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    config = dataclasses.replace(MATCHED, step_matched=False)
    assert fine_tune(build_classifier(pretrained), pretrained, train, val, config, seed=3, kept=KEPT).num_steps == 4


# --- objectives -------------------------------------------------------------------------------------------------------


def test_weighted_passes_draw_with_replacement_and_anew(tiny_base, made_tokens, events):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 23), made_tokens("val", 9)
    weights = np.where(np.arange(23) % 2, 0.0, 5.0)  # need not add up to one
    fit = fine_tune(
        build_classifier(pretrained),
        pretrained,
        train,
        val,
        CONFIG,
        seed=3,
        objective=Objective(sampling_weights=weights),
    )
    assert fit.num_steps == len(events) == 2 * 6
    passes = [sorted(i for _, batch in events[start : start + 6] for i in batch) for start in (0, 6)]
    assert [len(drawn) for drawn in passes] == [23, 23]
    assert passes[0] != passes[1]
    assert all(i % 2 == 0 for drawn in passes for i in drawn)
    assert all(len(set(drawn)) < 12 for drawn in passes)


def test_weighted_passes_group_lengths(tiny_base, made_tokens, events):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 120), made_tokens("val", 9)
    config = dataclasses.replace(CONFIG, num_epochs=1)
    objective = Objective(sampling_weights=np.ones(120))
    fine_tune(build_classifier(pretrained), pretrained, train, val, config, seed=3, objective=objective)
    spreads = [np.ptp(train.lengths[batch]) for _, batch in events]
    assert np.mean(spreads) < 2 < np.ptp(train.lengths)


def test_a_batch_loss_sees_each_examples_loss_at_its_position(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 22), made_tokens("val", 9)
    seen = []

    def batch_loss(losses, positions):
        seen.append((losses.detach().clone(), positions))
        return losses.mean()

    model = build_classifier(pretrained)
    fine_tune(model, pretrained, train, val, CONFIG, seed=5, objective=Objective(batch_loss=batch_loss))
    theirs = build_classifier(pretrained)
    fine_tune(theirs, pretrained, train, val, CONFIG, seed=5)
    for name, weight in theirs.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, rtol=1e-4, atol=1e-6, msg=name)

    untrained = build_classifier(pretrained)
    load_weights(untrained, pretrained.weights)
    with seeded(5, "cpu"):
        draw_new_modules(untrained, pretrained)
    losses, positions = seen[0]
    for loss, position in zip(losses, positions, strict=True):
        alone = train.batch(np.array([position]))
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits_of(untrained, alone), alone.labels))
    assert sorted(np.concatenate([positions for _, positions in seen[:6]])) == list(range(22))


def test_a_batch_loss_is_what_is_minimised(tiny_base, made_tokens):
    pretrained, train, val = tiny_base("bert"), made_tokens("train", 16), made_tokens("val", 9)
    model = build_classifier(pretrained)
    config = dataclasses.replace(CONFIG, num_epochs=40, learning_rate=3e-3)

    def first_half_only(losses, positions):
        return (losses * torch.from_numpy(positions < 8)).sum()

    fine_tune(model, pretrained, train, val, config, seed=0, objective=Objective(batch_loss=first_half_only))
    assert (predict(model, train.take(np.arange(8)), "float32").margins > 0).all()
