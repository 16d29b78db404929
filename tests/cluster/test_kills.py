"""A dozen processes that are killed at random moments cost no row, nor do two drivers of one sweep."""

from pathlib import Path

import pytest

from cluster import kills


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # Ray's, of each node that is added
def test_killed_processes_cost_no_row(tmp_path: Path) -> None:
    told = kills.run(tmp_path, num_kills=12, kills_per_sweep=12, seed=3, between_seconds=(0.5, 4.0))
    assert told.num_wrong == 0, told
    assert sum(told.killed.values()) > 0, told
    assert set(told.statuses) <= {0, 1}, told
