"""Kronfluence's scores are the local pool's, to the bit, for any number of actors."""

import numpy as np
import pytest

from d3m_ray.attribution import AttributionInputs, Checkpoint, kronfluence, shards
from d3m_ray.cluster.pool import RayPool
from d3m_ray.config import EkfacConfig
from d3m_ray.pool import LocalPool

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_cluster")]


def test_kronfluence_scores_are_those_of_the_local_pool(tiny_base, made_tokens, monkeypatch):
    monkeypatch.setattr(shards, "MIN_SHARD_TOKENS", 60)
    monkeypatch.setattr(kronfluence, "TRAIN_PER_QUERY_TOKENS", 1)
    base = tiny_base("bert")
    checkpoints = (Checkpoint("made", base, base.weights),)
    inputs = AttributionInputs(checkpoints, made_tokens("train", 60), made_tokens("val", 14, 3), 3, "float32")
    assert len(shards.make_shards(inputs.train)) > 5
    expected = kronfluence.score_groups(inputs, EkfacConfig(), LocalPool())
    for num_workers in (1, 2):
        with RayPool(num_workers) as pool:
            scores = kronfluence.score_groups(inputs, EkfacConfig(), pool)
        np.testing.assert_array_equal(scores, expected)
