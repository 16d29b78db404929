"""A small Ray cluster in this machine for the tests of this folder."""

from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[None]:
    """Two cores, no dashboard."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200_000_000)
    yield
    ray.shutdown()
