"""Scores by metagradient and by TracIn: checkpoints side by side, each run replayed forward, then traced back.

Shapes: N train examples, Q queries, G groups, S targets, T steps to a checkpoint.

A run is cut into about sqrt(T) segments of about sqrt(T) steps. The first pass keeps the state before each; on the way
back each is replayed once more, its states kept, and left behind. So a run costs two fits and its backward passes, and
the memory of about 2 sqrt(T) states of three vectors of the weights' size, and of sqrt(T) gradients; the derivatives
of each target are three such vectors more, twice.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.metagradient.replay import (
    Replay,
    State,
    distance_to,
    num_steps_to,
    replay_segment,
    run_of,
    trainee_of,
)
from d3m_ray.attribution.metagradient.reverse import Traced, begin_trace, trace_segment
from d3m_ray.pool import WorkerPool

WARNED_GROWTH = 30.0  # of the norm: 1 to 4 at rates of 1e-4 to 3e-3 on a tiny model, 110 to 250 at 1e-2
REFUSED_GROWTH = 1e6  # of the norm: float32 keeps 7 digits
WARNED_CHANGE = 1.0  # of a mean margin or loss: no random tenth of train does that, exploded slopes say that it does
REFUSED_CHANGE = 100.0  # of a mean margin or loss: beyond what any removal does
SHARE_LEFT_OUT = 0.1  # of train, at random: what WARNED_CHANGE speaks of
REFUSED_DISTANCE = 0.01  # of the way that training went
METAGRADIENT, TRACIN = "metagradient", "tracin"


def score_groups(method: str, inputs: AttributionInputs, pool: WorkerPool) -> np.ndarray:
    """[N, G] float32: how much each train example's weight raises the mean target of each group's queries."""
    return _scores(method, inputs, pool, np.eye(inputs.num_groups))


def score_alignment(method: str, inputs: AttributionInputs, pool: WorkerPool, group_weights: np.ndarray) -> np.ndarray:
    """[N, 1] float32: the same for the sum of the groups' mean targets in these weights [G], by one trace."""
    return _scores(method, inputs, pool, group_weights[None, :])


def _scores(method: str, inputs: AttributionInputs, pool: WorkerPool, of_groups: np.ndarray) -> np.ndarray:
    """[N, S] the mean over the checkpoints, given the weight [S, G] of each group in each target.

    Raises ValueError where a run cannot be replayed, FloatingPointError where its derivatives have exploded.
    """
    groups = inputs.queries.groups
    query_weights = of_groups[:, groups] / np.bincount(groups, minlength=inputs.num_groups)[groups]
    task = pool.put(
        Replay(
            inputs.checkpoints, inputs.queries, inputs.precision, inputs.query_target, query_weights,
            has_hessian=method == METAGRADIENT,
        )
    )  # fmt: skip
    numbers = list(range(len(inputs.checkpoints)))
    slopes, growths = [], []
    for start in range(0, len(numbers), pool.num_workers):  # states are large: no more runs at once than can be served
        traced = _trace_runs(method, inputs, task, numbers[start : start + pool.num_workers], pool)
        slopes += [of_run.example_slopes.T for of_run in traced]
        growths += [float(of_run.growth.max()) for of_run in traced]
    _report(method, inputs, growths, [predicted_change(of_run) for of_run in slopes])
    return np.mean(slopes, axis=0).astype(np.float32)


def predicted_change(slopes: np.ndarray) -> float:
    """By how much, one standard deviation, slopes [N, S] say that a random tenth of train less changes a target.

    The largest of the targets'. It stands to be compared with what retraining does.
    """
    num_examples = len(slopes)
    drawn = num_examples * SHARE_LEFT_OUT * (1 - SHARE_LEFT_OUT)
    return float(np.sqrt(drawn) * slopes.std(axis=0).max())


def _report(method: str, inputs: AttributionInputs, growths: list[float], changes: list[float]) -> None:
    """Record and say how far a method's slopes may be trusted. Raises FloatingPointError where they are absurd."""
    inputs.record("cotangent_growth", growths)
    inputs.record("predicted_change", changes)
    growth, change = float(np.max(growths)), float(np.max(changes))  # max() passes over NaN that is not first
    if not change <= REFUSED_CHANGE:
        raise FloatingPointError(
            f"{method}'s slopes say that a random tenth of train less changes the target by {change:.2g}, which is no "
            "margin and no loss: lower --learning-rate, or try --adam-eps-root 1e-8 and --warmup-share 0.1"
        )
    told = (
        f"{method}: going back through training, the derivatives grew {growth:.3g} times; by its slopes a random tenth "
        f"of train less changes the target by {change:.2g}, one standard deviation"
    )
    inputs.say(told)
    if growth > WARNED_GROWTH or change > WARNED_CHANGE:
        inputs.say(
            f"warning: {method}'s slopes hold for very small changes of the data only, where derivatives grow more "
            f"than {WARNED_GROWTH:g} times or the change is beyond {WARNED_CHANGE:g}: lower --learning-rate, or try "
            "--adam-eps-root 1e-8 and --warmup-share 0.1"
        )


def _trace_runs(
    method: str, inputs: AttributionInputs, task: Any, numbers: Sequence[int], pool: WorkerPool
) -> list[Traced]:
    """Each of these checkpoints' runs traced back to its start, side by side; `task` is a handle to the Replay."""
    ends = {n: segment_ends(num_steps_to(inputs.checkpoints[n])) for n in numbers}
    most = max(map(len, ends.values()))
    states: dict[int, list[Any]] = {n: [None] for n in numbers}  # handles; None is the start of a run
    for place in range(most):
        at = [n for n in numbers if place < len(ends[n])]
        label = f"{method}, forward through segment {place + 1} of {most}"
        stops = [ends[n][place] for n in at]
        kept = pool.map_kept(label, replay_segment, task, at, [states[n][place] for n in at], stops)
        for n, handle in zip(at, kept, strict=True):
            states[n].append(handle)
    last = [states[n].pop() for n in numbers]
    _check_replays(method, inputs, list(pool.map(f"{method}, replays compared", distance_of, task, numbers, last)))
    traced = dict(
        zip(numbers, pool.map_kept(f"{method}, gradient of the target", begin_trace, task, numbers, last), strict=True)
    )
    del last
    for place in reversed(range(most)):
        at = [n for n in numbers if place < len(ends[n])]
        label = f"{method}, back through segment {place + 1} of {most}"
        before = [states[n].pop() for n in at]
        stops = [ends[n][place] for n in at]
        kept = pool.map_kept(label, trace_segment, task, at, before, stops, [traced[n] for n in at])
        traced.update(zip(at, kept, strict=True))
        _check_growth(method, float(np.max(list(pool.map(label, growth_of, None, kept)))))
    return list(pool.map(f"{method}, slopes", without_cotangents, task, numbers, [traced[n] for n in numbers]))


def segment_ends(num_steps: int) -> list[int]:
    """The step before which each segment ends: as many segments as steps in one, nearly."""
    length = math.ceil(math.sqrt(num_steps))
    return [min(start + length, num_steps) for start in range(0, num_steps, length)]


def distance_of(task: Replay, index: int, state: State) -> float:
    """As `distance_to`, of one of the task's checkpoints."""
    return distance_to(task.checkpoints[index], trainee_of(task, index), state)


def growth_of(_: None, traced: Traced) -> float:
    """The largest growth of any target's derivatives so far."""
    return float(traced.growth.max())


def without_cotangents(task: Replay, index: int, traced: Traced) -> Traced:
    """What the driver reads of it, which is small: of the examples that the run had."""
    nothing = np.zeros((len(traced.growth), 0))
    slopes = traced.example_slopes[:, run_of(task.checkpoints[index]).kept]
    return Traced(nothing, nothing, nothing, slopes, traced.growth, traced.first_norms)


def _check_replays(method: str, inputs: AttributionInputs, distances: list[float]) -> None:
    """Raises ValueError where a replayed run has ended elsewhere than its checkpoint; warns where it nearly has."""
    worst = float(np.max(distances))
    if not worst <= REFUSED_DISTANCE:
        raise ValueError(
            f"{method} replays the run that a checkpoint came from, and a replay here ends {worst:.2g} of the way away "
            "from it: run it where the base models were trained, or let it train them again, in another --store"
        )
    if worst > 0:
        inputs.say(
            f"warning: {method} replays the run that a checkpoint came from, and a replay here ends {worst:.2g} of the "
            "way away from it: the base models were trained on another kind of machine"
        )


def _check_growth(method: str, growth: float) -> None:
    """Raises FloatingPointError where the derivatives are not finite, or so large that they say nothing."""
    if not growth <= REFUSED_GROWTH:
        raise FloatingPointError(
            f"{method}'s derivatives grew {growth:.2g} times on their way back through training, where "
            f"{REFUSED_GROWTH:.0g} is the most that says anything: lower --learning-rate, or try --adam-eps-root 1e-8 "
            "and --warmup-share 0.1"
        )
