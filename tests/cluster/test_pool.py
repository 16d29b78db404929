"""Actors give what this process gives, to the bit, for any number of them, also when one dies."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

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
from d3m_ray.cluster.pool import RayPool
from d3m_ray.errors import RunError
from d3m_ray.pool import LocalPool
from d3m_ray.training.fine_tuning import fine_tune
from d3m_ray.training.model import build_classifier
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import reason

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


def test_results_come_in_the_order_of_the_shards():
    seen = []
    with RayPool(2, on_progress=lambda *event: seen.append(event)) as pool:
        assert list(pool.map("adding", add, pool.put(100), range(7), range(7))) == [100 + i * i for i in range(7)]
        kept = pool.map_kept("keeping", add, pool.put(0), range(3), [2, 2, 2])
        assert list(pool.map("adding", add, pool.put(1), kept, kept)) == [1, 5, 17]
    assert seen[:7] == [("adding", done, 7) for done in range(1, 8)]


def test_a_step_that_fails_says_its_own_error():
    with RayPool(2) as pool, pytest.raises(KeyError, match="shard 3") as failed:
        list(pool.map("refusing", refuse, None, range(6)))
    assert reason(failed.value) == "KeyError: 'shard 3'"


def test_the_shard_of_a_dead_worker_is_run_again(tmp_path):
    with RayPool(2) as pool:
        assert list(pool.map("dying", die_once, tmp_path, range(5))) == [0, 10, 20, 30, 40]
    assert (tmp_path / "died-2").exists()


def test_workers_that_find_no_room_take_no_shard():
    with RayPool(4) as pool:
        assert list(pool.map("adding", add, pool.put(100), range(20), range(20))) == [100 + i * i for i in range(20)]


def test_a_pool_that_finds_no_room_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 1.0)
    said: list[str] = []
    nowhere = RayPool(1, gpus_per_worker=1, max_wait_seconds=3, say=said.append)
    with nowhere as pool, pytest.raises(RunError, match=r"waited \d s .* to start one of 1 attribution workers"):
        list(pool.map("adding", add, 0, range(3), range(3)))
    assert said[0].startswith("waiting for the cluster to start one of 1 attribution workers, 1 s so far, 3 at most")


@pytest.fixture(scope="module", params=[1, 2])
def pool(request, small_cluster) -> Iterator[RayPool]:
    with RayPool(request.param) as pool:
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
