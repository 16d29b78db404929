"""The attribution method `overlap`, with a setting of its own."""

from dataclasses import dataclass

import numpy as np

import d3m_ray as d3m


@dataclass(frozen=True)
class OverlapSettings:
    """Settings of overlap."""

    at_least: float = 0.0
    """A smaller share of words counts as none."""


@d3m.method("overlap", settings=OverlapSettings)
def overlap(inputs: d3m.AttributionInputs, settings: OverlapSettings, pool: d3m.WorkerPool) -> np.ndarray:
    """Share of a query's words that the train example has, signed by label agreement."""
    shared = pool.put((inputs.train, inputs.queries, inputs.query_sets, settings))
    shards = np.array_split(np.arange(len(inputs.train)), 8)
    return np.concatenate(list(pool.map("overlap", score_shard, shared, shards)))


def score_shard(shared, positions):
    """[n, query sets] of the train examples at these positions."""
    train, queries, query_sets, settings = shared
    asked = [words_of(queries, place) for place in range(len(queries))]
    shares = np.array([[len(words_of(train, i) & words) / len(words) for words in asked] for i in positions])
    shares[shares < settings.at_least] = 0
    agree = np.where(train.labels[positions][:, None] == queries.labels, 1, -1)
    return np.stack([(agree * shares)[:, members].mean(axis=1) for members in query_sets], axis=1)


def words_of(examples, place):
    """The token ids of the example at this place."""
    return set(examples.flat_ids[examples.offsets[place] : examples.offsets[place + 1]].tolist())
