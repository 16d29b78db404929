"""Actors give what this process gives, to the bit, for any number of them, also when one dies."""

import itertools
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import cloudpickle

from d3m_ray import waiting
from d3m_ray.attribution import shards
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint, TrainingRun
from d3m_ray.attribution.libraries import kronfluence, traker
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.cluster.fleet import Fleet
from d3m_ray.cluster.pool import RayPool, shard_name
from d3m_ray.errors import RunError, reason
from d3m_ray.pool import LocalPool
from d3m_ray.training.fine_tuning import fine_tune
from d3m_ray.training.model import build_classifier
from d3m_ray.training.settings import TrainingConfig

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_cluster")]

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests


def add(shared: int, left: int, right: int) -> int:
    return shared + left * right


def refuse(shared: None, shard: int) -> int:
    if shard == 3:
        raise KeyError(f"shard {shard}")
    return shard


def die_once(shared: Path, shard: int) -> int:
    marker = shared / f"died-{shard}"
    if shard == 2 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * shard


def process_of(shared: None, shard: int) -> int:
    time.sleep(0.1)
    return os.getpid()


def span_of(shared: None, shard: int) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(0.05)
    return start, time.monotonic()


def mapped(fleet: Fleet, num_workers: int, *arguments: Any) -> list[Any]:
    """What a pool that is then given back maps."""
    with RayPool(fleet, num_workers) as pool:
        return list(pool.map(*arguments))


def test_results_come_in_the_order_of_the_shards(fleet):
    seen = []
    with RayPool(fleet, 2, on_progress=lambda *event: seen.append(event)) as pool:
        assert list(pool.map("adding", add, pool.put(100), range(7), range(7))) == [100 + i * i for i in range(7)]
        kept = pool.map_kept("keeping", add, pool.put(0), range(3), [2, 2, 2])
        assert list(pool.map("adding", add, pool.put(1), kept, kept)) == [1, 5, 17]
    assert seen[:7] == [("adding", done, 7) for done in range(1, 8)]


def test_a_step_that_fails_says_its_own_error(fleet):
    with RayPool(fleet, 1) as pool, pytest.raises(KeyError, match="shard 3") as failed:
        list(pool.map("refusing", refuse, None, range(4)))
    assert reason(failed.value) == "KeyError: 'shard 3'"


def test_the_shard_of_a_dead_worker_is_run_again(fleet, tmp_path):
    assert mapped(fleet, 2, "dying", die_once, tmp_path, range(5)) == [0, 10, 20, 30, 40]
    assert (tmp_path / "died-2").exists()


def test_workers_outlive_a_pool_and_find_no_more_room_than_there_is(fleet):
    """Of four two find room; a pool of one uses one at a time; a pool after it uses the same processes."""
    of_four: set[int] = set()
    while len(of_four) < 2:  # until both have begun
        of_four |= set(mapped(fleet, 4, "looking", process_of, None, range(4)))
    spans = sorted(mapped(fleet, 1, "looking", span_of, None, range(8)))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert set(mapped(fleet, 2, "looking", process_of, None, range(8))) == of_four
    assert len(of_four) == 2


def test_a_pool_that_finds_no_room_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 1.0)
    said: list[str] = []
    nowhere = Fleet(gpus_per_worker=1, max_wait_seconds=3, say=said.append)
    with pytest.raises(RunError, match=r"waited \d+ s .* to start a worker for attribution"):
        mapped(nowhere, 1, "adding", add, 0, range(3), range(3))
    nowhere.end()
    assert re.match(
        r"waiting for the cluster to start a worker for attribution, \d+ s so far, which is normal up to 60 s", said[0]
    )


@pytest.fixture(params=[1, 2])
def pool(request, fleet) -> Iterator[RayPool]:
    with RayPool(fleet, request.param) as pool:
        yield pool


@pytest.mark.filterwarnings("ignore:traker projects without its CUDA kernel:RuntimeWarning")
@pytest.mark.parametrize("name", METHODS)
def test_scores_are_those_of_the_local_pool(name, pool, tiny_base, made_tokens, monkeypatch):
    pretrained, train = tiny_base("bert"), made_tokens("train", 60)
    training = TrainingConfig(num_epochs=1, batch_size=16, precision="float32", final_model="last")
    model = build_classifier(pretrained)
    fine_tune(model, pretrained, train, train, training, seed=0)
    weights = {weight: tensor.numpy() for weight, tensor in model.state_dict().items()}
    checkpoints = (Checkpoint("made", pretrained, weights, TrainingRun(training, 0, 1, train, np.arange(60))),)
    inputs = AttributionInputs(checkpoints, train, made_tokens("val", 14, 3), 3, "auto")
    monkeypatch.setattr(shards, "MIN_SHARD_TOKENS", 60)
    monkeypatch.setattr(kronfluence, "TRAIN_PER_QUERY_TOKENS", 1)
    monkeypatch.setattr(traker, "GRADIENT_BYTES", 4 * 8 * sum(array.size for array in pretrained.weights.values()))
    assert len(shards.make_shards(inputs.train)) > 5
    assert len(traker.make_batches(inputs.train, checkpoints[0], inputs.precision)) == 8
    known = {"trak": TrakConfig(projection_dim=128), "ekfac": EkfacConfig(), "metagradient": MetagradientConfig()}
    settings = known.get(METHODS[name].settings or "")
    for score in filter(None, (METHODS[name].load().score_groups, METHODS[name].load().score_queries)):
        np.testing.assert_array_equal(score(inputs, settings, pool), score(inputs, settings, LocalPool()))


def test_a_shard_is_called_by_its_number_and_many_share_a_few_names():
    assert [shard_name("trak scores", index, 3) for index in range(3)] == [
        *("trak scores, shard 1/3", "trak scores, shard 2/3", "trak scores, shard 3/3"),
    ]
    assert shard_name("trak scores", 16, 128) == "trak scores, shards 17-24/128"
    for num_shards in (1, 16, 17, 100, 128, 1000):
        assert len({shard_name("trak scores", index, num_shards) for index in range(num_shards)}) <= 16
    assert shard_name("trak scores", 16, 17) == "trak scores, shard 17/17"
