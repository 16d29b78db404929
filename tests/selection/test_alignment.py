"""Group weights, group alignment, and the pseudo-groups of Auto-D3M: planted clusters come back."""

import numpy as np
import pytest

from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.selection import alignment
from d3m_ray.selection.alignment import group_alignment, group_weights, pseudo_groups
from d3m_ray.selection.settings import AlignmentConfig


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


def test_worst_loss_weighs_the_groups_by_the_slopes_of_their_smooth_maximum():
    """Against central differences of log(sum exp(beta L)) / beta; sharp enough, it is the maximum's own slope."""
    losses, step = np.array([0.5, 0.7, 0.62]), 1e-6

    def smooth_maximum(values: np.ndarray, beta: float) -> float:
        return float(np.log(np.exp(beta * values).sum()) / beta)

    for beta in (AlignmentConfig().worst_loss_beta, 30.0):
        weights = group_weights(losses, AlignmentConfig(target="worst_loss", worst_loss_beta=beta))
        slopes = [
            (smooth_maximum(losses + move, beta) - smooth_maximum(losses - move, beta)) / (2 * step)
            for move in step * np.eye(3)
        ]
        np.testing.assert_allclose(weights, slopes, rtol=1e-6)
    sharp, flat = (
        group_weights(losses, AlignmentConfig(target="worst_loss", worst_loss_beta=beta)) for beta in (1e4, 0.0)
    )
    np.testing.assert_allclose(sharp, [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(flat, 1 / 3)


def test_the_other_targets_leave_the_weights_to_the_losses():
    losses = np.array([0.1, 2.0, 0.5])
    for target in ("loss", "probability"):
        weights = group_weights(losses, AlignmentConfig(target=target))
        np.testing.assert_array_equal(weights, group_weights(losses, AlignmentConfig(target="margin")))


def test_alignment_weighs_the_groups():
    scores = np.array([[1.0, -2.0], [0.5, 0.5]], dtype=np.float32)
    np.testing.assert_allclose(group_alignment(scores, np.array([0.25, 0.75])), [-1.25, 0.5])


def test_group_scores_are_means_over_the_groups_queries():
    scores = np.arange(12, dtype=np.float32).reshape(2, 6)
    averaged = group_scores(scores, np.array([1, 0, 1, 2, 0, 1]), 3)
    np.testing.assert_array_equal(averaged, [[2.5, 7 / 3, 3.0], [8.5, 25 / 3, 9.0]])
    assert averaged.dtype == np.float64
    with pytest.raises(ValueError, match=r"each of the 4 groups has queries; these have none: \[0, 2\]"):
        group_scores(scores, np.array([1, 3, 1, 3, 1, 3]), 4)


LABELS = np.array([0, 1] * 20)
CLUSTERS = np.random.default_rng(0).permutation(np.repeat([0, 1], [28, 12]))  # unequal sides within each class


def planted(num_train: int = 300, seed: int = 0) -> np.ndarray:
    """[N, Q] scores that differ by cluster within a class, about a mean that is far from zero."""
    rng = np.random.default_rng(seed)
    means = 5 + rng.normal(size=(num_train, 2))
    directions = rng.normal(size=(num_train, 2))
    noise = rng.normal(size=(num_train, len(LABELS)))
    return (means[:, LABELS] + (2 * CLUSTERS - 1) * directions[:, LABELS] + 0.5 * noise).astype(np.float32)


def by_components(scores: np.ndarray) -> np.ndarray:
    """[C] bool by a singular value decomposition of the centred columns, the first column False."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    component = np.linalg.svd(centred.astype(np.float64), full_matrices=False)[0][:, 0]
    sides = component @ centred > 0
    return sides != sides[0]


@pytest.mark.parametrize("entries", [1, 7 * 20, 10**6])
def test_the_split_does_not_depend_on_how_many_rows_are_taken_at_once(entries, monkeypatch):
    scores = planted()
    expected = pseudo_groups(scores, LABELS)
    monkeypatch.setattr(alignment, "BLOCK_ENTRIES", entries)
    np.testing.assert_array_equal(pseudo_groups(scores, LABELS), expected)


def test_planted_clusters_come_back_within_each_class():
    groups = pseudo_groups(planted(), LABELS)
    assert groups.dtype == np.int64
    for label in (0, 1):
        clusters = CLUSTERS[label == LABELS]
        np.testing.assert_array_equal(groups[label == LABELS] - 2 * label, clusters != clusters[0])


def test_sides_are_those_of_the_leading_component():
    scores = np.random.default_rng(3).normal(size=(15, 40))
    groups = pseudo_groups(scores, LABELS)
    for label in (0, 1):
        np.testing.assert_array_equal(groups[label == LABELS] - 2 * label, by_components(scores[:, label == LABELS]))


def test_the_sign_of_the_scores_and_of_the_component_do_not_matter(monkeypatch):
    scores = planted()
    groups = pseudo_groups(scores, LABELS)
    np.testing.assert_array_equal(pseudo_groups(-scores, LABELS), groups)
    np.testing.assert_array_equal(pseudo_groups(scores + 100, LABELS), groups)
    from d3m_ray.selection import alignment

    original = alignment.linalg.eigh
    monkeypatch.setattr(
        alignment.linalg, "eigh", lambda *args, **options: (lambda w, v: (w, -v))(*original(*args, **options))
    )
    np.testing.assert_array_equal(pseudo_groups(scores, LABELS), groups)


def test_the_order_of_the_queries_does_not_move_the_split():
    order = np.random.default_rng(5).permutation(len(LABELS))
    groups, reordered = pseudo_groups(planted(), LABELS), pseudo_groups(planted()[:, order], LABELS[order])
    together = groups[:, None] == groups
    np.testing.assert_array_equal(reordered[:, None] == reordered, together[np.ix_(order, order)])


def test_any_labels_are_numbered_in_ascending_order():
    odd = np.where(LABELS == 0, 7, -2)
    groups = pseudo_groups(planted(), odd)
    assert set(groups[odd == -2]) == {0, 1}
    assert set(groups[odd == 7]) == {2, 3}


def test_a_class_of_one_query_or_of_equal_scores_is_one_group():
    scores = planted()[:, :7]
    labels = np.array([0, 1, 1, 1, 2, 2, 2])
    scores[:, 1:4] = scores[:, [1]]
    groups = pseudo_groups(scores, labels)
    assert groups[:4].tolist() == [0, 1, 1, 1]
    assert set(groups[4:]) == {2, 3}
    equal = np.repeat(np.random.default_rng(0).normal(size=(50, 1)), 7, axis=1)
    assert (equal != equal.mean(axis=1, keepdims=True)).any(), "rounding of the mean sets equal columns apart from it"
    assert pseudo_groups(equal, np.zeros(7)).tolist() == [0] * 7
    assert pseudo_groups(np.zeros((4, 3)), np.zeros(3)).tolist() == [0, 0, 0]


def test_two_queries_are_two_groups_and_a_query_at_the_centre_joins_the_first():
    scores = np.random.default_rng(0).normal(size=(30, 2))
    assert pseudo_groups(scores, np.zeros(2)).tolist() == [0, 1]
    with_centre = np.concatenate([scores.mean(axis=1, keepdims=True), scores], axis=1)
    assert pseudo_groups(with_centre, np.zeros(3)).tolist() == [0, 0, 1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    scores = planted()
    scores[3, 4] = value
    with pytest.raises(ValueError, match="scores are finite numbers"):
        pseudo_groups(scores, LABELS)
