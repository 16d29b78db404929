"""Shards hold every example once, in parts of nearly equal token counts, whatever the lengths."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from d3m_ray.attribution.shards import GRADIENT_TOKENS, MIN_SHARD_TOKENS, gradient_batches, make_shards
from d3m_ray.training.batching import TokenizedExamples

LENGTHS = st.lists(st.integers(1, 3 * MIN_SHARD_TOKENS), max_size=40)


def _of_lengths(lengths: list[int]) -> TokenizedExamples:
    zeros = np.zeros(len(lengths), dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenizedExamples("train", np.zeros(sum(lengths), dtype=np.int32), offsets, zeros, zeros, 0, 2)


@given(LENGTHS, st.integers(1, 12))
def test_every_example_is_in_one_shard_and_none_is_much_larger_than_another(lengths, max_shards):
    shards = make_shards(_of_lengths(lengths), max_shards)
    assert sorted(np.concatenate(shards).tolist() if shards else []) == list(range(len(lengths)))
    assert all(len(shard) for shard in shards)
    assert len(shards) <= max_shards
    sizes = [sum(lengths[position] for position in shard) for shard in shards]
    size = max(MIN_SHARD_TOKENS, -(-sum(lengths) // max_shards))
    assert all(total <= size + max(lengths) for total in sizes)


@given(LENGTHS)
def test_shards_follow_from_the_lengths_alone_longest_first(lengths):
    shards = make_shards(_of_lengths(lengths))
    in_order = [lengths[position] for shard in shards for position in shard]
    assert in_order == sorted(lengths, reverse=True)


@given(st.lists(st.integers(1, GRADIENT_TOKENS // 4), min_size=1, max_size=400))
def test_gradient_batches_hold_every_example_once_none_much_larger_than_another(lengths):
    of = np.array(lengths)
    batches = list(gradient_batches(of))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(of)))
    padded = [len(batch) * int(of[batch].max()) for batch in batches]
    assert max(padded) <= 1.5 * GRADIENT_TOKENS + of.max()


def test_no_gradient_batch_is_a_small_rest():
    lengths = np.full(MIN_SHARD_TOKENS // 32 + 2, 32)
    assert [len(batch) for batch in gradient_batches(lengths)] == [66, 64]


def test_an_example_longer_than_a_batch_is_one():
    assert [batch.tolist() for batch in gradient_batches(np.array([4, 9 * GRADIENT_TOKENS, 5]))] == [[1], [2, 0]]
