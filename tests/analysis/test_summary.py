from collections.abc import Callable
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import ttest_1samp

from d3m_ray.analysis.contrasts import contrast_table
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.analysis.summary import render_summary, summary_table
from d3m_ray.store.store import Store

EXPERIMENT = "insects-1a2b3c4d"
BASE = ("nothing removed", 0)


def summary_of(store: Store) -> pd.DataFrame:
    (results,) = read_results(store)
    return summary_table(results)


def test_the_summary_says_what_the_trials_say(filled_store: Store) -> None:
    summary = summary_of(filled_store).set_index(["method", "num_removed"])
    assert summary.index.tolist() == [
        BASE,
        *[("random", count) for count in (50, 100, 200)],
        *[("trak", count) for count in (50, 100, 200)],
        ("trak_heuristic", 137),
    ]
    assert summary.loc[BASE, "wga"] == pytest.approx(0.70 + 0.02)
    trak = summary.loc[("trak", 200)]
    assert trak["num_seeds"] == trak["num_pairs"] == 5
    assert trak["wga"] == pytest.approx(0.70 + 0.02 + 0.02)
    assert trak["worst_cell_accuracy"] == pytest.approx(0.66 + 0.02 + 0.02)
    assert trak["accuracy"] == pytest.approx(0.775 + 0.02 + 0.02)
    assert trak["wga_low"] < trak["wga"] < trak["wga_high"]
    np.testing.assert_allclose(
        trak[["wga_difference", "wga_difference_low", "wga_difference_high"]].astype(float), 0.03
    )


def test_an_arm_without_random_removal_of_as_many_is_compared_with_the_base(filled_store: Store) -> None:
    summary = summary_of(filled_store).set_index(["method", "num_removed"])
    heuristic = summary.loc[("trak_heuristic", 137)]
    assert (heuristic["wga_difference_reference"], heuristic["num_pairs"]) == ("base", 5)
    assert heuristic["wga_difference"] == pytest.approx(heuristic["wga"] - summary.loc[BASE, "wga"])
    assert (summary.loc["trak", "wga_difference_reference"] == "random").all()
    for itself in ("random", "nothing removed"):
        assert summary.loc[itself, ["wga_difference", "wga_difference_reference"]].isna().all(axis=None)


def test_a_difference_to_the_base_is_marked_in_words(filled_store: Store) -> None:
    console = Console(width=140, file=StringIO())
    console.print(render_summary(summary_of(filled_store)))
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines if " base [" in line] == ["trak_heuristic"]


def test_a_model_is_not_compared_with_itself(filled_store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(5):
        write_trial("group_dro", 0, seed, 0.05 + 0.01 * seed, fit_key=f"dro-{seed}", objective="group_dro")
    summary = summary_of(filled_store).set_index(["method", "num_removed"])
    assert ("trak", 0) not in summary.index
    assert summary.loc[("group_dro", 0), "wga_difference_t_low"] == pytest.approx(0.05), "but with plain training"


def test_the_difference_is_paired_by_seed(store: Store, write_trial: Callable[..., None]) -> None:
    for seed, shared in [(0, 0.0), (1, 0.1), (2, -0.1), (3, 0.2)]:
        write_trial("trak", 50, seed, shared + 0.02)
        if seed < 3:
            write_trial("random", 50, seed, shared)
    row = summary_of(store).set_index("method").loc["trak"]
    assert (row["num_seeds"], row["num_pairs"]) == (4, 3)
    assert row["wga_difference"] == pytest.approx(0.02)


def test_a_difference_is_the_same_number_in_every_table(results: Results) -> None:
    table = contrast_table(results)
    compared = table[table["measure"] == "worst"].set_index(["method", "num_removed", "reference"])["difference"]
    for row in summary_table(results).itertuples():
        if isinstance(row.wga_difference_reference, str):
            assert row.wga_difference == compared[row.method, row.num_removed, row.wga_difference_reference]


@pytest.mark.parametrize("num_seeds", [1, 2, 4])
def test_few_seeds_have_no_interval_but_their_values(
    store: Store, write_trial: Callable[..., None], num_seeds: int
) -> None:
    gains = [0.0, 0.1, 0.04, 0.06][:num_seeds]
    for seed, gain in enumerate(gains):
        write_trial("trak", 50, seed, gain)
        write_trial("random", 50, seed)
    summary = summary_of(store)
    row = summary.set_index("method").loc["trak"]
    assert row["wga"] == pytest.approx(0.7 + np.mean(gains))
    bounds = [name for name in summary if name.endswith(("_low", "_high"))]
    assert len(bounds) == 12
    assert summary[bounds].isna().all(axis=None)
    assert row["wga_values"] == " ".join(f"{0.7 + gain:g}" for gain in gains)
    assert [float(value) for value in row["wga_difference_values"].split()] == pytest.approx(gains)
    assert pd.isna(summary.set_index("method").loc["random", "wga_difference_values"])
    console = Console(width=140, file=StringIO())
    console.print(render_summary(summary))
    shown = console.file.getvalue()
    assert "[" not in shown
    if num_seeds > 1:
        assert " ".join(f"{100 * gain:+.1f}" for gain in gains) in shown
        assert " ".join(f"{70 + 100 * gain:.1f}" for gain in gains) in shown


def test_from_five_seeds_on_the_difference_has_students_interval(
    store: Store, write_trial: Callable[..., None]
) -> None:
    gains = [0.0, 0.1, 0.04, 0.06, 0.01]
    for seed, gain in enumerate(gains):
        write_trial("trak", 50, seed, gain)
        write_trial("random", 50, seed)
    summary = summary_of(store)
    row = summary.set_index("method").loc["trak"]
    expected = ttest_1samp(gains, 0).confidence_interval(0.95)
    assert (row["wga_difference_t_low"], row["wga_difference_t_high"]) == pytest.approx((expected.low, expected.high))
    assert row["wga_difference_t_low"] < row["wga_difference_low"] < row["wga_difference"]
    console = Console(width=140, file=StringIO())
    console.print(render_summary(summary))
    assert f"[{100 * expected.low:+.1f},{100 * expected.high:+.1f}]" in console.file.getvalue()


def test_an_experiment_without_trials_has_no_summary(store: Store) -> None:
    store.write_experiment("birds", {"dataset": "birds", "model": "tiny-bert"}, [])
    assert summary_of(store).empty


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_the_widest_intervals_are_shown_whole(store: Store, write_trial: Callable[..., None], width: int) -> None:
    for seed, gain in enumerate([-0.3, 0.3, -0.2, 0.2, 0.3]):
        write_trial("gradient_cosine_auto", 0, seed, gain, fit_key=f"other-{seed}", objective="group_dro")
        write_trial("random", 0, seed)
    summary = summary_of(store)
    console = Console(width=width, file=StringIO())
    console.print(render_summary(summary, "title"))
    shown = console.file.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    row = summary.set_index("method").loc["gradient_cosine_auto"]
    for name in ("wga_low", "wga_high", "accuracy_low", "accuracy_high"):
        assert f"{100 * row[name]:.1f}" in shown
    for name in ("wga_difference_t_low", "wga_difference_t_high"):
        assert f"{100 * row[name]:+.1f}" in shown


@pytest.mark.parametrize("width", [80, 140])
def test_the_rendering_shows_every_number_at_any_width(filled_store: Store, width: int) -> None:
    console = Console(width=width, file=StringIO())
    console.print(render_summary(summary_of(filled_store), "title"))
    lines = console.file.getvalue().splitlines()
    assert "…" not in "".join(lines)
    (row,) = [line.split() for line in lines if line.split()[:2] == ["200", "5"] and "+3.0" in line]
    assert [cell for cell in row if not cell.startswith("[")] == ["200", "5", "74.0", "70.0", "81.5", "+3.0"]
    assert "[+3.0,+3.0]" in "".join(lines)
