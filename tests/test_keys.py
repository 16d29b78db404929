"""Content hashes tell apart whatever differs, wherever a text is cut and whatever characters it holds."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from d3m_ray.keys import content_hash

TEXTS = st.lists(st.text(alphabet=["a", "b", "\0", "\x08"], max_size=3), max_size=4)


@given(TEXTS, TEXTS)
def test_two_sequences_have_one_hash_only_where_they_are_equal(left, right):
    assert (content_hash(left) == content_hash(right)) == (left == right)
    assert (content_hash(*left) == content_hash(*right)) == (left == right)


def test_no_separator_joins_what_was_apart():
    alike = [["a\0b"], ["a", "b"], ["a\0", "b"], ["a", "\0b"], ["ab"], ["", "ab"]]
    for left, right in itertools.combinations(alike, 2):
        assert content_hash(left) != content_hash(right)


def test_mappings_hash_by_content_alone():
    assert content_hash({"b": 1, "a": [2]}) == content_hash({"a": [2], "b": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 1.5})
