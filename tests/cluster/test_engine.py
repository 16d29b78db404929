"""Joining Ray: what cannot be met is refused rather than waited for."""

import socket

import pytest
import ray

from d3m_ray.cluster.engine import _begun_with_ray_start, connected
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


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there_is_said_at_once(address, tmp_path):
    refused = pytest.raises(ConnectionError, match=f"nothing answers at {address}: start the cluster")
    with refused, connected(ExecutionConfig(address=address), Store(tmp_path)):
        pass
    assert not ray.is_initialized()


def test_auto_joins_what_ray_start_began_and_nothing_that_has_ended(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert _begun_with_ray_start() is None
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        note.write_text(address)
        assert _begun_with_ray_start() == address
    assert _begun_with_ray_start() is None
