"""Joining Ray: what cannot be met is refused rather than waited for."""

import pytest
import ray

from d3m_ray.cluster.engine import connected
from d3m_ray.config import ExecutionConfig
from d3m_ray.errors import InputError
from d3m_ray.store import Store


@pytest.mark.slow
def test_more_than_this_machine_has_is_refused(tmp_path):
    execution = ExecutionConfig(address="local", gpus_per_trial=64)
    refused = pytest.raises(InputError, match="--gpus-per-trial asks for 64: lower it")
    with refused, connected(execution, Store(tmp_path)):
        pass
    assert not ray.is_initialized()


def test_a_cluster_that_is_not_there_is_said(tmp_path):
    execution = ExecutionConfig(address="127.0.0.1:1")
    with pytest.raises(ConnectionError), connected(execution, Store(tmp_path)):
        pass
