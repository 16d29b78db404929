"""Selections: the lowest, those below zero, and random subsets of their own."""

import numpy as np
import pytest

from d3m_ray.alignment import group_alignment, group_weights
from d3m_ray.config import AlignmentConfig
from d3m_ray.selection import ARMS, below_zero, lowest, random_subset

ALIGNMENT = np.array([0.3, -0.1, 0.0, -0.5, -0.1, 2.0])


def test_the_lowest_are_taken_first_of_equals_first():
    assert lowest(ALIGNMENT, 2).tolist() == [1, 3]
    assert lowest(ALIGNMENT, 3).tolist() == [1, 3, 4]
    assert lowest(ALIGNMENT, 0).tolist() == []


def test_below_zero_takes_the_negative_ones_alone():
    assert below_zero(ALIGNMENT).tolist() == [1, 3, 4]


def test_random_subsets_are_drawn_anew_for_each_number_and_seed():
    drawn = {(k, seed): set(random_subset(500, k, seed).tolist()) for k in (50, 100) for seed in (0, 1)}
    assert all(len(drawn[k, seed]) == k for k, seed in drawn)
    assert drawn[50, 0] == set(random_subset(500, 50, 0).tolist())
    assert not drawn[50, 0] <= drawn[100, 0], "a larger subset does not contain the smaller one"
    assert len(drawn[100, 0] & drawn[100, 1]) < 50, "another seed draws another subset"


def test_an_arm_that_reads_alignment_follows_it():
    assert ARMS["trak"].select(6, ALIGNMENT, 2, 0).tolist() == [1, 3]
    assert ARMS["trak_heuristic"].select(6, ALIGNMENT, 0, 0).tolist() == [1, 3, 4]
    assert ARMS["random"].select(6, None, 2, 0).tolist() == random_subset(6, 2, 0).tolist()


@pytest.mark.parametrize(
    ("rule", "beta", "expected"),
    [
        ("softmax", 1.0, np.exp([0.1, 2.0, 0.5]) / np.exp([0.1, 2.0, 0.5]).sum()),
        ("softmax", 0.0, np.full(3, 1 / 3)),
        ("loss", 1.0, [0.1, 2.0, 0.5]),
        ("uniform", 1.0, np.full(3, 1 / 3)),
    ],
)
def test_group_weights(rule, beta, expected):
    weights = group_weights(np.array([0.1, 2.0, 0.5]), AlignmentConfig(group_weights=rule, beta=beta))
    np.testing.assert_allclose(weights, expected, rtol=1e-12)


def test_alignment_weighs_the_groups():
    scores = np.array([[1.0, -2.0], [0.5, 0.5]], dtype=np.float32)
    np.testing.assert_allclose(group_alignment(scores, np.array([0.25, 0.75])), [-1.25, 0.5])
