"""A small Ray cluster in this machine for the tests of this folder."""

from collections.abc import Iterator

import pytest
import ray

from d3m_ray.cluster.fleet import Fleet


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[None]:
    """Two cores, no dashboard."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def fleet(small_cluster: None) -> Iterator[Fleet]:
    """Workers of one core each, kept over the tests of a file."""
    fleet = Fleet()
    yield fleet
    fleet.end()
