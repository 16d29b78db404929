"""Selections: the lowest, those below zero, random subsets of their own, the best-served cells, balanced parts."""

from dataclasses import replace

import numpy as np
import pytest

from d3m_ray.attribution.registry import METHODS
from d3m_ray.selection.arms import (
    ARMS,
    Evidence,
    Selection,
    balancing,
    below_zero,
    can_select,
    cell_floors,
    lowest,
    random_majority,
    random_subset,
    selection_of,
)
from d3m_ray.selection.numbers import is_removal, removal_counts, shares_of_rounds
from d3m_ray.training.registry import RECIPES

ALIGNMENT = np.array([0.3, -0.1, 0.0, -0.5, -0.1, 2.0])
LABELS = np.array([0, 1, 1, 0, 1, 1])
GROUPS = np.array([0, 0, 0, 1, 1, 1])


def evidence(**fields) -> Evidence:
    return Evidence(LABELS, GROUPS, **fields)


def test_the_lowest_are_taken_first_of_equals_first():
    assert lowest(evidence(), ALIGNMENT, 2).tolist() == [1, 3]
    assert lowest(evidence(), ALIGNMENT, 3).tolist() == [1, 3, 4]
    assert lowest(evidence(), ALIGNMENT, 0).tolist() == []


def test_below_zero_takes_the_negative_ones_alone():
    assert below_zero(evidence(), ALIGNMENT).tolist() == [1, 3, 4]


@pytest.mark.parametrize(
    ("floor", "floors"),
    [(0, [0, 0, 0, 0]), (1, [1, 1, 0, 1]), (25, [25, 10, 0, 1]), ("10%", [3, 1, 0, 1]), ("99.9%", [30, 10, 0, 1])],
)
def test_a_floor_is_a_count_or_a_share_rounded_up(floor, floors):
    cells = np.repeat([0, 1, 3], [30, 10, 1])
    assert cell_floors(cells, 4, floor).tolist() == floors


def _one_after_the_other(alignment: np.ndarray, cells: np.ndarray, floors: np.ndarray) -> list[int]:
    """Every example that may go, the lowest first, each only while its cell has more than its floor."""
    left = np.bincount(cells, minlength=len(floors))
    gone = []
    for example in sorted(range(len(alignment)), key=lambda i: (alignment[i], i)):
        if left[cells[example]] > floors[cells[example]]:
            left[cells[example]] -= 1
            gone.append(example)
    return gone


@pytest.mark.parametrize("floor", [0, 1, 3, "10%", "40%"])
@pytest.mark.parametrize("seed", range(4))
def test_the_guarded_lowest_are_those_taken_one_after_the_other(floor, seed):
    rng = np.random.default_rng(seed)
    labels, groups = rng.integers(0, 2, 80), rng.choice(3, 80, p=[0.8, 0.15, 0.05])
    alignment = rng.integers(-9, 9, 80) / 4.0  # with equals
    plain = Evidence(labels, groups, alignments={"trak": alignment})
    given = replace(plain, cell_floors=cell_floors(plain.cells, 6, floor))
    gone = _one_after_the_other(alignment, given.cells, given.cell_floors)
    for number in (0, 1, 20, 45):
        removed = ARMS["trak"].select(given, number, 0)
        assert removed.tolist() == sorted(gone[:number])
        spared = set(ARMS["trak"].select(plain, number, 0).tolist()) - set(removed.tolist())
        assert ARMS["trak"].spared(given, number, 0).tolist() == sorted(spared)
    below = [example for example in gone if alignment[example] < 0]
    assert ARMS["trak_heuristic"].select(given, 0, 0).tolist() == sorted(below)
    upside_down = _one_after_the_other(-alignment, given.cells, given.cell_floors)
    assert ARMS["trak_helpful"].select(given, 20, 0).tolist() == sorted(upside_down[:20])


def test_a_floor_says_nothing_of_arms_that_read_no_alignment():
    given = _large()
    guarded = replace(given, cell_floors=cell_floors(given.cells, 4, "90%"))
    for arm in ("random", "random_majority", "balanced"):
        assert ARMS[arm].select(guarded, 300, 0).tolist() == ARMS[arm].select(given, 300, 0).tolist()
        assert ARMS[arm].spared(guarded, 300, 0).size == 0


@pytest.mark.parametrize(
    ("number", "rounds", "shares"),
    [(9, 1, [9]), (9, 3, [3, 3, 3]), (10, 3, [3, 3, 4]), (2, 3, [0, 1, 1]), (1, 4, [0, 0, 0, 1]), (0, 2, [0, 0])],
)
def test_rounds_share_out_a_number(number, rounds, shares):
    assert shares_of_rounds(number, rounds) == shares


def test_an_arm_of_several_rounds_waits_for_all_of_them():
    given = evidence(alignments={"trak": ALIGNMENT}, num_rounds=2)
    done = Selection(np.array([0, 2]), np.array([1]))
    assert can_select("trak_heuristic", given, None)
    assert can_select("random", given, 2)
    assert not can_select("trak", given, 2)
    after = replace(given, over_rounds={("trak", 2): done})
    assert can_select("trak", after, 2)
    assert not can_select("trak", after, 3)
    assert selection_of("trak", after, 2, 0) is done
    assert selection_of("random", after, 2, 0).removed.tolist() == random_subset(6, 2, 0).tolist()


def test_random_subsets_are_drawn_anew_for_each_number_and_seed():
    drawn = {(k, seed): set(random_subset(500, k, seed).tolist()) for k in (50, 100) for seed in (0, 1)}
    assert all(len(drawn[k, seed]) == k for k, seed in drawn)
    assert drawn[50, 0] == set(random_subset(500, 50, 0).tolist())
    assert not drawn[50, 0] <= drawn[100, 0], "a larger subset does not contain the smaller one"
    assert len(drawn[100, 0] & drawn[100, 1]) < 50, "another seed draws another subset"


def test_arms_that_read_an_alignment_follow_it():
    given = evidence(alignments={"trak": ALIGNMENT, "trak_auto": -ALIGNMENT, "loss": ALIGNMENT})
    assert ARMS["trak"].select(given, 2, 0).tolist() == [1, 3]
    assert ARMS["trak_heuristic"].select(given, 0, 0).tolist() == [1, 3, 4]
    assert ARMS["trak_helpful"].select(given, 2, 0).tolist() == [0, 5]
    assert ARMS["trak_auto"].select(given, 2, 0).tolist() == [0, 5]
    assert ARMS["trak_auto_heuristic"].select(given, 0, 0).tolist() == [0, 5]
    assert ARMS["loss"].select(given, 2, 0).tolist() == [1, 3]
    assert ARMS["random"].select(given, 2, 0).tolist() == random_subset(6, 2, 0).tolist()


def test_an_arm_waits_for_what_it_reads():
    ready = {name for name, arm in ARMS.items() if arm.can_select(evidence())}
    assert {"random", "balanced", "group_dro"} <= ready
    assert not ready & {"trak", "trak_auto", "loss", "random_majority"}
    assert ARMS["trak"].can_select(evidence(alignments={"trak": ALIGNMENT}))
    assert not ARMS["trak_auto"].can_select(evidence(alignments={"trak": ALIGNMENT}))
    assert ARMS["random_majority"].can_select(evidence(cell_losses=np.zeros((2, 2))))


def _large(num_examples: int = 600) -> Evidence:
    """Cells of 300, 150, 100 and 50 examples; the second and the third are served best."""
    cells = np.repeat([0, 1, 2, 3], [300, 150, 100, 50])
    return Evidence(cells % 2, cells // 2, cell_losses=np.array([[0.9, 0.1], [0.2, np.nan]]))


def test_random_majority_removes_from_the_best_served_half_only():
    given = _large()
    removed = random_majority(given, 200, seed=0)
    assert len(set(removed.tolist())) == 200
    assert set(given.cells[removed]) == {0, 1, 2}, "the second and third hold 250 of 600: the next best joins"
    assert set(given.cells[random_majority(given, 550, seed=0)]) == {0, 1, 2}
    assert set(given.cells[random_majority(given, 580, seed=0)]) == {0, 1, 2, 3}
    enough = Evidence(given.labels[:550], given.groups[:550], cell_losses=np.array([[0.1, 0.9], [0.5, 0.5]]))
    assert set(enough.cells[random_majority(enough, 200, seed=0)]) == {0}, "one cell holds half"
    assert random_majority(given, 200, seed=1).tolist() != removed.tolist()


@pytest.mark.parametrize(
    ("arm", "parts", "num_removed"),
    [("balanced", "cells", 600 - 4 * 50), ("balanced_group", "groups", 300), ("balanced_label", "labels", 200)],
)
def test_balanced_arms_leave_every_part_as_large_as_the_smallest(arm, parts, num_removed):
    given = _large()
    removed = ARMS[arm].select(given, 0, 0)
    assert len(removed) == num_removed
    assert len(set(np.bincount(np.delete(getattr(given, parts), removed)))) == 1
    assert (np.diff(removed) > 0).all()
    assert removed.tolist() != ARMS[arm].select(given, 0, 1).tolist(), "another seed keeps others"


def test_balancing_leaves_out_parts_that_do_not_occur():
    assert balancing(np.array([0, 0, 2, 2, 2, 5]), 0, 1).size == 3


def test_arms_that_train_otherwise_remove_nothing():
    otherwise = {name: arm for name, arm in ARMS.items() if arm.recipe != "erm"}
    assert set(otherwise) == {"balanced_sampling", "group_dro", "jtt", "dfr"}
    assert all(arm.select(evidence(), 0, 0).size == 0 for arm in otherwise.values())


def test_every_name_that_an_arm_bears_exists():
    assert {arm.recipe for arm in ARMS.values()} == set(RECIPES)
    assert {arm.alignment.removesuffix("_auto") for arm in ARMS.values() if arm.alignment} <= set(METHODS)


@pytest.mark.parametrize(
    ("numbers", "num_train", "counts"),
    [
        ((0, 50, 100), 400, (0, 50, 100)),
        ((0, "5%", "10%", "20%"), 400, (0, 20, 40, 80)),
        ((0, "0%", "0.0%"), 400, (0,)),
        (("0.1%", "1%", 1), 30, (1,)),
        (("12.5%", 50), 400, (50,)),
        (("33%",), 100, (33,)),
    ],
)
def test_shares_come_to_counts(numbers, num_train, counts):
    assert removal_counts(numbers, num_train) == counts


@pytest.mark.parametrize("number", [-1, "5", "5 %", "%", "-5%", "100%", "1e1%", "nan%", "٣%"])
def test_what_is_neither_a_count_nor_a_share_is_none(number):
    assert not is_removal(number)
