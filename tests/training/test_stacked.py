"""Fits in a stack are those that are trained one by one, whatever stands beside them."""

import contextlib
import dataclasses

import numpy as np
import pytest
import torch
from counted_model import Waits

from d3m_ray.training import stacked
from d3m_ray.training.cpu_layers import ATTENTION as ATTENTION_OF_CPU
from d3m_ray.training.fine_tuning import fine_tune, parameters_with_gradients
from d3m_ray.training.model import build_classifier, load_weights
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.training.stacked import ATTENTION, Stack, build_stackable, check_stackable, fine_tune_stacked, take_step
from d3m_ray.training.steps import Step

CONFIG = TrainingConfig(num_epochs=2, learning_rate=1e-3, batch_size=8, precision="float32")
SEED, NUM_TRAIN = 3, 24


def _vector(model) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def splits(made_tokens):
    return made_tokens("train", NUM_TRAIN), made_tokens("val", 12)


@pytest.fixture
def kept(splits) -> list[np.ndarray]:
    """All; without four; and without the whole of a batch, and some more."""
    steps = stacked.training_steps(splits[0].lengths, np.arange(NUM_TRAIN), CONFIG, SEED)
    of_a_batch = next(steps).batch
    rng = np.random.default_rng(0)
    removed = [[], rng.choice(NUM_TRAIN, 4, replace=False), np.union1d(of_a_batch, rng.choice(NUM_TRAIN, 3))]
    return [np.delete(np.arange(NUM_TRAIN), np.asarray(each, dtype=int)) for each in removed]


def _one_by_one(pretrained, splits, config, kept, dtype):
    """By fit its weights and what its training did; and the weights that all start from."""
    found = []
    for of_fit in kept:
        model = build_classifier(pretrained).to(dtype)
        fit = fine_tune(model, pretrained, *splits, config, SEED, of_fit)
        found.append((_vector(model), fit))
    load_weights(model, pretrained.weights)
    return found, _vector(model)


def _stacked(pretrained, splits, config, kept, dtype=torch.float32):
    model = build_stackable(pretrained, "cpu").to(dtype)
    fits = fine_tune_stacked(model, pretrained, *splits, config, SEED, kept)
    found = []
    for place in range(len(kept)):
        fit = fits.load(place)
        assert not model.training
        found.append((_vector(model), fit))
    return found


OTHERWISE = {"final_model": "last", "adam_eps_root": 1e-8, "warmup_share": 0.3, "max_grad_norm": 0.1}


@pytest.mark.parametrize(
    ("dropout", "dtype", "rounding", "changes"),
    [
        (0.1, torch.float64, 1e-13, {}),
        (0.1, torch.float32, 1e-4, {}),
        (0.0, torch.float32, 1e-4, {}),
        (0.1, torch.float64, 1e-13, OTHERWISE),
    ],
    ids=["float64", "float32", "without dropout", "otherwise"],
)
def test_fits_are_those_of_fine_tune(tiny_base, splits, kept, dropout, dtype, rounding, changes):
    """The dropout of each example too; rounding is of the way that training went."""
    pretrained, config = tiny_base("bert", dropout=dropout), dataclasses.replace(CONFIG, **changes)
    expected, start = _one_by_one(pretrained, splits, config, kept, dtype)
    for (weights, fit), (ours, ours_fit) in zip(
        expected, _stacked(pretrained, splits, config, kept, dtype), strict=True
    ):
        assert (ours - weights).norm() <= rounding * (weights - start).norm()
        assert (ours_fit.num_steps, ours_fit.chosen_epoch) == (fit.num_steps, fit.chosen_epoch)
    (first, _), (second, _), _ = expected
    assert (first - second).norm() > 100 * rounding * (first - start).norm(), "what is removed shows"


def test_fits_in_bfloat16_are_as_near_as_their_rounding(tiny_base, splits, kept):
    kept = kept[:2]
    pretrained, config = tiny_base("bert", dropout=0.1), dataclasses.replace(CONFIG, precision="bfloat16")
    expected, _ = _one_by_one(pretrained, splits, CONFIG, kept, torch.float32)
    narrow, _ = _one_by_one(pretrained, splits, config, kept, torch.float32)
    for wide, one, ours in zip(expected, narrow, _stacked(pretrained, splits, config, kept), strict=True):
        assert (ours[0] - one[0]).norm() <= 2 * (one[0] - wide[0]).norm()


def test_a_fit_does_not_depend_on_its_neighbours(tiny_base, splits, kept):
    """In a stack of as many fits, to the bit, on a CPU; and on its place in it."""
    pretrained = tiny_base("bert", dropout=0.1)
    [_, (expected, _), _] = _stacked(pretrained, splits, CONFIG, kept)
    for neighbours, place in (([kept[2], kept[1], kept[2]], 1), ([kept[0], kept[0], kept[1]], 2)):
        assert torch.equal(_stacked(pretrained, splits, CONFIG, neighbours)[place][0], expected)


def test_a_stack_of_one_is_a_fit(tiny_base, splits, kept):
    pretrained = tiny_base("bert", dropout=0.1)
    [(weights, fit)], start = _one_by_one(pretrained, splits, CONFIG, kept[1:2], torch.float64)
    [(ours, ours_fit)] = _stacked(pretrained, splits, CONFIG, kept[1:2], torch.float64)
    assert (ours - weights).norm() <= 1e-13 * (weights - start).norm()
    assert dataclasses.replace(ours_fit, train_seconds=fit.train_seconds) == fit


def test_what_logits_do_not_depend_on_stays_as_it_was(tiny_base, splits, kept):
    """As of `fine_tune`, whose optimiser leaves it alone: a stack's would let it decay."""
    model = build_stackable(tiny_base("bert"), "cpu")
    model.unread = torch.nn.Linear(3, 3)
    before = model.unread.weight.detach().clone()
    weights = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    pretrained = dataclasses.replace(tiny_base("bert"), weights=weights)
    fits = fine_tune_stacked(model, pretrained, *splits, CONFIG, SEED, kept[:2])
    fits.load(1)
    assert torch.equal(model.unread.weight, before)


def test_a_fit_whose_loss_is_not_finite_says_so_and_leaves_the_others_alone(tiny_base, splits, kept, monkeypatch):
    pretrained = tiny_base("bert", dropout=0.1)
    expected = _stacked(pretrained, splits, CONFIG, kept)

    def spoilt(stack, train, step, *others):
        with torch.no_grad():
            stack.flat[0][1] = torch.nan
        return take_step(stack, train, step, *others)

    monkeypatch.setattr(stacked, "take_step", spoilt)
    model = build_stackable(pretrained, "cpu")
    fits = fine_tune_stacked(model, pretrained, *splits, CONFIG, SEED, kept)
    with pytest.raises(FloatingPointError, match="not finite: lower --learning-rate"):
        fits.load(1)
    for place in (0, 2):
        fits.load(place)
        assert torch.equal(_vector(model), expected[place][0])


def test_what_cannot_be_stacked_is_refused_before_it_is_trained(tiny_base, splits, kept):
    pretrained = tiny_base("bert", dropout=0.1)
    model = build_stackable(pretrained, "cpu")
    before = _vector(model)
    with pytest.raises(ValueError, match="at least one train example, received none"):
        fine_tune_stacked(model, pretrained, *splits, CONFIG, SEED, [*kept, np.array([], dtype=int)])
    independent = dataclasses.replace(CONFIG, pairing="independent")
    with pytest.raises(ValueError, match="take --pairing common"):
        fine_tune_stacked(model, pretrained, *splits, independent, SEED, kept)
    assert torch.equal(_vector(model), before)


class Reads(torch.nn.Module):
    """Reads a value, as torch cannot where there are several."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values * float(values.detach().mean())


class Counts(torch.nn.Module):
    """Gives something else each time, whatever was drawn."""

    number = 0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        self.number += 1
        return values * self.number


@pytest.mark.parametrize(("layer", "reason"), [(Reads, "is none: .*item"), (Counts, "gives other logits in a stack")])
def test_a_model_that_is_another_in_a_stack_is_refused(tiny_base, splits, layer, reason):
    pretrained = tiny_base("bert")
    model = build_stackable(pretrained, "cpu")
    load_weights(model, pretrained.weights)
    model.dropout = layer()
    parameters = parameters_with_gradients(model, splits[0])
    with pytest.raises(ValueError, match=f"over several weights at once, in one dropout, and Bert.* {reason}"):
        check_stackable(model, parameters, splits[0])


def test_every_common_architecture_can_be_stacked(tiny_base, made_tokens, architecture):
    pretrained = tiny_base(architecture, dropout=0.1)
    train = dataclasses.replace(made_tokens(end=2), pad_id=pretrained.config["pad_token_id"])
    model = build_stackable(pretrained, "cpu")
    load_weights(model, pretrained.weights)
    check_stackable(model, parameters_with_gradients(model, train), train)


def test_a_step_on_a_device_waits_for_nothing(tiny_base, splits, monkeypatch):
    """On torch's meta device, which raises where a value is read. Positions go there, for the batch and what counts."""
    monkeypatch.setattr(stacked, "autocast", lambda *_: contextlib.nullcontext())  # which torch has none of for it
    model = build_stackable(tiny_base("bert", dropout=0.1), "meta").train()
    assert model.config._attn_implementation == ATTENTION != ATTENTION_OF_CPU
    stack = Stack(model, list(model.parameters()), 3)
    optimizer = torch.optim.AdamW(stack.flat, foreach=True)
    is_kept = torch.ones(3, NUM_TRAIN, dtype=torch.bool, device="meta")
    step = Step(0, np.arange(8), np.arange(8))
    take_step(stack, splits[0], step, is_kept, CONFIG, optimizer)
    with Waits() as waits:
        losses = take_step(stack, splits[0], step, is_kept, CONFIG, optimizer)
    assert losses.shape == (3,)
    assert waits.copies == [(8,), (8,)]
