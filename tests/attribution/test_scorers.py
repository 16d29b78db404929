"""Scorers of one function over query sets: the sets that it is asked for, and the shape that it gives."""

import dataclasses
import pickle

import numpy as np
import pytest

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.scorers import by_query_sets
from d3m_ray.pool import LocalPool


@pytest.fixture
def inputs(tiny_base, made_tokens) -> AttributionInputs:
    pretrained = tiny_base("bert")
    queries = dataclasses.replace(made_tokens("val", 5, 2), groups=np.array([1, 0, 1, 1, 0]))
    return AttributionInputs(
        (Checkpoint("made", pretrained, pretrained.weights),), made_tokens("train", 4), queries, num_groups=2
    )


def sums(inputs, settings, pool):
    """Each train example's number times the sum of the set's positions."""
    return np.arange(len(inputs.train))[:, None] * np.array([[sum(positions) for positions in inputs.query_sets]])


def test_groups_and_queries_are_sets_of_positions(inputs):
    scorers = by_query_sets("sums", sums)
    of_groups = scorers.score_groups(inputs, None, LocalPool())
    assert of_groups.tolist() == [[n * (1 + 4), n * (0 + 2 + 3)] for n in range(4)]
    of_queries = scorers.score_queries(inputs, None, LocalPool())
    assert of_queries.tolist() == [[n * query for query in range(5)] for n in range(4)]
    assert of_groups.dtype == of_queries.dtype == np.float32
    assert scorers.score_alignment is None


def test_settings_and_pool_are_passed_on(inputs):
    got = []
    scorers = by_query_sets("told", lambda *given: got.append(given[1:]) or np.zeros((4, 2)))
    pool = LocalPool()
    scorers.score_groups(inputs, "settings", pool)
    assert got == [("settings", pool)]


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 4), ()])
def test_another_shape_is_refused(inputs, shape):
    scorers = by_query_sets("short", lambda inputs, settings, pool: np.zeros(shape))
    with pytest.raises(ValueError, match=r"short gives \[train examples, query sets\] \(4, 2\), received shape"):
        scorers.score_groups(inputs, None, LocalPool())


@pytest.mark.parametrize("kind", [complex, str, object])
def test_what_is_no_real_number_is_refused(kind, inputs):
    scorers = by_query_sets("odd", lambda inputs, settings, pool: np.zeros((4, 2)).astype(kind))
    with pytest.raises(ValueError, match="odd gives real numbers, received"):
        scorers.score_groups(inputs, None, LocalPool())


def test_no_method_changes_what_the_fits_after_it_are_trained_on(inputs):
    shared = inputs.checkpoints[0].pretrained.weights
    examples = inputs.train
    for array in (examples.flat_ids, examples.offsets, examples.labels, examples.groups, *shared.values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_inputs_travel_without_those_who_are_told_of_them(inputs):
    told = []
    listening = dataclasses.replace(inputs, say=told.append, record=lambda name, value: told.append(name))
    there = pickle.loads(pickle.dumps(listening))
    there.say("at a worker")
    there.record("at a worker", 1)
    listening.say("at the driver")
    assert told == ["at the driver"]
    assert there.train.flat_ids.tolist() == inputs.train.flat_ids.tolist()
