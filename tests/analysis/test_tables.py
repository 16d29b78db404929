from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from d3m_ray.analysis.tables import read_trials, render_summary, summary_table, write_summary
from d3m_ray.store import Store, StoreError

EXPERIMENT = "insects-1a2b3c4d"


def test_the_summary_says_what_the_trials_say(filled_store: Store) -> None:
    summary = summary_table(filled_store, EXPERIMENT).set_index(["method", "num_removed"])
    assert summary.index.tolist() == [
        *[("random", count) for count in (0, 50, 100, 200)],
        *[("trak", count) for count in (0, 50, 100, 200)],
        ("trak_heuristic", 137),
    ]
    trak = summary.loc[("trak", 200)]
    assert trak["num_seeds"] == trak["num_pairs"] == 3
    assert trak["wga"] == pytest.approx(0.70 + 0.02 + 0.01)
    assert trak["worst_cell_accuracy"] == pytest.approx(0.66 + 0.02 + 0.01)
    assert trak["accuracy"] == pytest.approx(0.775 + 0.02 + 0.01)
    assert trak["wga_low"] < trak["wga"] < trak["wga_high"]
    np.testing.assert_allclose(
        trak[["wga_difference", "wga_difference_low", "wga_difference_high"]].astype(float), 0.03
    )


def test_the_difference_to_random_is_missing_where_random_is(filled_store: Store) -> None:
    summary = summary_table(filled_store, EXPERIMENT).set_index(["method", "num_removed"])
    assert summary.loc[("trak_heuristic", 137), "num_pairs"] == 0
    assert np.isnan(summary.loc[("trak_heuristic", 137), "wga_difference"])
    assert summary.loc["random", "wga_difference"].isna().all()


def test_the_difference_is_paired_by_seed(store: Store, write_trial: Callable[..., None]) -> None:
    for seed, shared in [(0, 0.0), (1, 0.1), (2, -0.1), (3, 0.2)]:
        write_trial("trak", 50, seed, shared + 0.02)
        if seed < 3:
            write_trial("random", 50, seed, shared)
    row = summary_table(store, EXPERIMENT).set_index("method").loc["trak"]
    assert (row["num_seeds"], row["num_pairs"]) == (4, 3)
    assert row["wga_difference"] == pytest.approx(0.02)


def test_one_seed_has_no_interval(store: Store, write_trial: Callable[..., None]) -> None:
    write_trial("trak", 50, 0, 0.0)
    row = summary_table(store, EXPERIMENT).iloc[0]
    assert row["wga"] == pytest.approx(0.7)
    assert np.isnan(row["wga_low"])


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
        summary_table(filled_store, "birds")


def test_the_csv_holds_the_summary(filled_store: Store, tmp_path: Path) -> None:
    path = tmp_path / "out" / "summary.csv"
    summary = write_summary(filled_store, EXPERIMENT, path)
    pd.testing.assert_frame_equal(pd.read_csv(path), summary, check_dtype=False)


@pytest.mark.parametrize("width", [80, 140])
def test_the_rendering_shows_every_number_at_any_width(filled_store: Store, width: int) -> None:
    console = Console(width=width, file=StringIO())
    console.print(render_summary(summary_table(filled_store, EXPERIMENT), "title"))
    lines = console.file.getvalue().splitlines()
    assert "…" not in "".join(lines)
    (row,) = [line.split() for line in lines if line.split()[:2] == ["200", "3"] and "+3.0" in line]
    assert [cell for cell in row if not cell.startswith("[")] == ["200", "3", "73.0", "69.0", "80.5", "+3.0"]
    assert "[+3.0,+3.0]" in "".join(lines)
