"""Removal in rounds: how far each arm and number is, by the alignments that the store has of its rounds.

Round t removes its share by the alignment of what the rounds before left, made with models that are trained without
what these removed. The rounds so far are found again from the store each time: it alone says where they stand.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from d3m_ray.experiment.keys import NOTHING, alignment_key
from d3m_ray.experiment.plan import floors_of
from d3m_ray.experiment.run import Run
from d3m_ray.selection.arms import ARMS, Evidence, Selection
from d3m_ray.selection.numbers import removal_counts, shares_of_rounds


@dataclass(frozen=True, eq=False)
class Rounds:
    """How far one arm and number are."""

    selection: Selection
    """What has gone so far."""
    is_done: bool


def done_rounds(run: Run) -> dict[tuple[str, int], Selection]:
    """By arm and number removed, what went, of those whose rounds are all done; empty where there is one round."""
    return {arm: rounds.selection for arm, rounds in _all_rounds(run) if rounds.is_done}


def waiting_rounds(run: Run, given_up: Collection[tuple[bytes, str]]) -> Sequence[tuple[Run, Sequence[str]]]:
    """The reduced train splits whose alignments arms wait for, each once, with the names of these.

    Not those of the whole train split, nor those given up: pairs of the bytes of what is removed, and a name.
    """
    waiting: dict[bytes, tuple[np.ndarray, dict[str, None]]] = {}
    for (method, _), rounds in _all_rounds(run):
        removed = rounds.selection.removed
        name = ARMS[method].alignment
        if rounds.is_done or name is None or (removed.tobytes(), name) in given_up:
            continue
        if len(removed):
            waiting.setdefault(removed.tobytes(), (removed, {}))[1][name] = None
    return [(run.without(removed), list(names)) for removed, names in waiting.values()]


def _all_rounds(run: Run) -> Iterator[tuple[tuple[str, int], Rounds]]:
    if run.config.selection.rounds == 1:
        return
    for method in run.config.methods:
        for number in removal_counts(run.config.num_removed, len(run.context.splits.train)):
            if ARMS[method].goes_in_rounds and number > 0:
                yield (method, number), _rounds(method, number, run)


def _rounds(method: str, number: int, run: Run) -> Rounds:
    """As far as the store has the alignments."""
    arm, floors = ARMS[method], floors_of(run.config, run.context.splits)
    assert arm.alignment is not None, "only arms that go by alignment have rounds"
    removed, spared = NOTHING, NOTHING
    told: list[dict[str, int | str]] = []
    is_done = True
    for share in shares_of_rounds(number, run.config.selection.rounds):
        if share == 0:
            continue
        left = run.without(removed)
        alignment = left.stored_alignment(arm.alignment)
        if alignment is None:
            is_done = False
            break
        evidence = Evidence(
            left.train.labels,
            left.train.groups,
            run.context.splits.num_labels,
            {arm.alignment: alignment},
            cell_floors=floors,
            train=left.train,
        )
        spared = np.union1d(spared, left.kept[arm.spared(evidence, share, 0)])
        removed = np.sort(np.concatenate([removed, left.kept[arm.select(evidence, share, 0)]]))
        key = alignment_key(arm.alignment, run.config, run.context, left.removed)
        told.append({"num_removed": len(removed), "alignment_key": key})
    return Rounds(Selection(removed, np.setdiff1d(spared, removed), tuple(told)), is_done)
