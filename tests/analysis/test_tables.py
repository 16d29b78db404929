from collections.abc import Callable

import pandas as pd
import pytest

from d3m_ray.analysis.tables import read_trials
from d3m_ray.store import Store, StoreError

EXPERIMENT = "insects-1a2b3c4d"


def test_the_newest_of_two_trials_of_one_arm_and_seed_counts(store: Store, write_trial: Callable[..., None]) -> None:
    write_trial("trak", 50, 0, 0.1, key_suffix="-new", created_at=pd.Timestamp("2026-05-01", tz="UTC"))
    write_trial("trak", 50, 0, 0.0, key_suffix="-old")
    trials = read_trials(store, EXPERIMENT)
    assert set(trials["trial_key"]) == {"trak-50-0-new"}


def test_other_experiments_and_splits_stay_out(filled_store: Store, write_trial: Callable[..., None]) -> None:
    before = read_trials(filled_store, EXPERIMENT)
    write_trial("trak", 50, 0, 0.9, key_suffix="-other", experiment="other")
    write_trial("trak", 50, 0, 0.9, key_suffix="-val", split="val")
    pd.testing.assert_frame_equal(read_trials(filled_store, EXPERIMENT), before)
    assert len(read_trials(filled_store, EXPERIMENT, split="val")) == 15


def test_an_unknown_experiment_is_told_the_known_ones(filled_store: Store) -> None:
    with pytest.raises(StoreError, match=r"no test trial of 'birds'.*insects-1a2b3c4d"):
        read_trials(filled_store, "birds")
