"""Batches hold every example once, like lengths together, and never more tokens than the budget."""

import gc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3m_ray.training import batching
from d3m_ray.training.batching import DeviceExamples, budget_batches, on_device, put_rows, training_batches


@pytest.fixture
def lengths() -> np.ndarray:
    return np.random.default_rng(0).integers(3, 90, size=1013)


def test_an_epoch_holds_every_example_once_in_full_batches(lengths):
    batches = list(training_batches(lengths, 16, np.random.default_rng(1)))
    assert sorted(np.concatenate(batches)) == list(range(1013))
    assert sorted(len(batch) for batch in batches)[:2] == [1013 % 16, 16]


def test_training_batches_group_lengths_and_change_with_the_stream(lengths):
    batches = list(training_batches(lengths, 16, np.random.default_rng(1)))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    shuffled = np.random.default_rng(1).permutation(1013)[:1008].reshape(-1, 16)
    padded_at_random = sum(16 * lengths[batch].max() for batch in shuffled)
    assert padded < 1.15 * lengths.sum() < padded_at_random
    others = list(training_batches(lengths, 16, np.random.default_rng(2)))
    assert not np.array_equal(np.concatenate(batches), np.concatenate(others))


def test_budget_batches_hold_every_example_once_within_the_budget(lengths):
    batches = list(budget_batches(lengths, 256))
    assert sorted(np.concatenate(batches)) == list(range(1013))
    assert max(len(batch) * lengths[batch].max() for batch in batches) <= 256


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_whatever_the_lengths_no_batch_of_several_is_over_the_budget(lengths, max_tokens):
    of = np.array(lengths, dtype=np.int64)
    batches = list(budget_batches(of, max_tokens))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * of[batch].max() <= max_tokens for batch in batches)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_whatever_the_lengths_an_epoch_holds_every_example_once_and_one_batch_is_short(lengths, batch_size, seed):
    batches = list(training_batches(np.array(lengths), batch_size, np.random.default_rng(seed)))
    assert sorted(position for batch in batches for position in batch) == list(range(len(lengths)))
    assert sum(len(batch) < batch_size for batch in batches) <= 1


def test_an_example_over_the_budget_stands_alone():
    batches = [batch.tolist() for batch in budget_batches(np.array([4, 300, 5]), 16)]
    assert batches == [[1], [2, 0]]


def test_a_batch_is_padded_to_its_longest_example(made_tokens):
    tokens = made_tokens(num_examples=5)
    batch = tokens.batch(np.array([3, 1]))
    assert batch.input_ids.shape == (2, tokens.lengths[[3, 1]].max())
    assert batch.attention_mask.sum(dim=1).tolist() == tokens.lengths[[3, 1]].tolist()
    assert (batch.input_ids[batch.attention_mask == 0] == tokens.pad_id).all()
    assert batch.labels.tolist() == tokens.labels[[3, 1]].tolist()


def test_taking_examples_keeps_their_tokens(made_tokens):
    tokens = made_tokens(num_examples=9)
    taken = tokens.take(np.array([7, 2]))
    assert taken.lengths.tolist() == tokens.lengths[[7, 2]].tolist()
    assert (
        taken.flat_ids[: taken.offsets[1]].tolist() == tokens.flat_ids[tokens.offsets[7] : tokens.offsets[8]].tolist()
    )
    assert len(tokens.take(np.array([], dtype=int))) == 0


def test_a_cell_is_a_group_and_a_label(made_tokens):
    tokens = made_tokens(num_examples=30, num_groups=3)
    pairs = set(zip(tokens.cells.tolist(), tokens.groups.tolist(), tokens.labels.tolist(), strict=True))
    assert pairs == {(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 2, 0), (5, 2, 1)}


@pytest.mark.parametrize("num_tokens", [None, 15])
def test_a_batch_made_on_a_device_is_the_one_made_on_the_host(made_tokens, num_tokens):
    tokens = made_tokens(num_examples=9)
    there = DeviceExamples(tokens, torch.device("cpu"))
    for positions in (np.array([8, 0, 8]), np.flatnonzero(tokens.lengths == tokens.lengths[0])):
        host = tokens.batch(positions, num_tokens=num_tokens)
        other = there.batch(torch.from_numpy(positions), host.input_ids.shape[1], host.is_padded)
        for name in ("input_ids", "attention_mask", "labels"):
            assert torch.equal(getattr(host, name), getattr(other, name))
            assert getattr(host, name).dtype == getattr(other, name).dtype
        assert other.is_padded == host.is_padded == bool((host.attention_mask == 0).any())


def test_tokens_are_on_a_device_once_and_go_with_their_examples(made_tokens):
    tokens = made_tokens(num_examples=9)
    before = len(batching._on_devices)
    for positions in (np.array([1, 2]), np.array([3])):
        batch = tokens.batch(positions, "meta")
        assert batch.input_ids.shape == (len(positions), tokens.lengths[positions].max())
        assert batch.input_ids.device.type == batch.labels.device.type == "meta"
    assert len(batching._on_devices) == before + 1
    del tokens
    gc.collect()
    assert len(batching._on_devices) == before


def test_what_read_only_arrays_hold_goes_to_a_device_without_a_warning():
    array = np.arange(3)
    array.flags.writeable = False
    assert on_device(array, "cpu").tolist() == [0, 1, 2]


def test_rows_of_batches_are_put_where_they_belong():
    out = np.zeros((4, 1), dtype=np.float32)
    put_rows(out, [np.array([2, 0]), np.array([3])], [torch.tensor([[5.0], [6.0]]), torch.tensor([[7.0]])])
    assert out.ravel().tolist() == [6.0, 0.0, 5.0, 7.0]
    put_rows(out, [], [])
