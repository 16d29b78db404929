from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import same_color
from matplotlib.figure import Figure
from matplotlib.image import imread

from d3m_ray.analysis.figures import METHOD_STYLES, POINTS, draw_metric, metric_figure, write_figures
from d3m_ray.analysis.tables import identity_names, read_trials
from d3m_ray.store import Store, StoreError

EXPERIMENT = "insects-1a2b3c4d"


def test_lines_are_means_and_bands_are_intervals(filled_store: Store) -> None:
    axes = Figure().subplots()
    draw_metric(axes, read_trials(filled_store, EXPERIMENT), "accuracy", "worst")
    lines = {line.get_label(): line for line in axes.get_lines()}
    np.testing.assert_allclose(lines["trak"].get_xdata(), [0, 50, 100, 200])
    np.testing.assert_allclose(lines["trak"].get_ydata(), [0.72, 0.725, 0.73, 0.74])
    np.testing.assert_allclose(lines["random"].get_ydata(), [0.72, 0.7175, 0.715, 0.71])
    np.testing.assert_allclose(lines["nothing removed"].get_ydata(), 0.72)
    assert lines["random"].get_linestyle() == "--"
    assert same_color(lines["trak"].get_color(), METHOD_STYLES["trak"][0])
    bands = [band.get_paths()[0].vertices[:, 1] for band in axes.collections if isinstance(band, PolyCollection)]
    for band, method in zip(bands, ("trak", "random"), strict=True):
        assert band.min() < min(lines[method].get_ydata())
        assert band.max() > max(lines[method].get_ydata())


def test_a_single_number_removed_is_a_marker_with_an_error_bar(filled_store: Store) -> None:
    axes = Figure().subplots()
    draw_metric(axes, read_trials(filled_store, EXPERIMENT), "accuracy", "all")
    (bar,) = axes.containers
    point, caps, _ = bar.lines
    assert bar.get_label() == "trak heuristic"
    np.testing.assert_allclose(point.get_xydata(), [[137, 0.775 + 0.03 + 0.02]])
    assert caps[0].get_ydata()[0] < point.get_ydata()[0] < caps[1].get_ydata()[0]


@pytest.mark.parametrize(
    ("groups", "titles"),
    [
        ([], ["all examples (100)", "worst group", "ant (100)", "bee (100)", "cat (100)", "dog (100)"]),
        (["worst", "all"], ["worst group", "all examples (100)"]),
    ],
)
def test_a_figure_has_a_panel_per_group_and_one_legend(
    filled_store: Store, groups: list[str], titles: list[str]
) -> None:
    figure = metric_figure(read_trials(filled_store, EXPERIMENT), "auc", groups)
    assert [axes.get_title(loc="left") for axes in figure.axes if axes.axison] == titles
    (legend,) = figure.legends
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    extent = legend.get_window_extent()
    assert extent.x0 >= 0
    assert extent.x1 <= width, "the legend is not cut off"
    assert extent.y1 <= height
    labels = [text.get_text() for text in legend.get_texts()]
    assert sorted(labels) == ["nothing removed", "random", "trak", "trak heuristic"]


def test_identities_are_told_from_cells_and_summaries() -> None:
    groups = ["all", "worst", "worst_cell", "b/c", "b/c/0", "b/c/1", "a", "a/0"]
    assert identity_names(groups) == ["a", "b/c"]


@pytest.mark.slow
def test_every_figure_is_written_as_pdf_and_png(filled_store: Store, tmp_path: Path) -> None:
    paths = write_figures(filled_store, EXPERIMENT, tmp_path / "figures")
    names = ["headline", "accuracy", "loss", "fpr", "fnr", "auc", "macro_f1"]
    assert [path.name for path in paths] == [f"{name}.{suffix}" for name in names for suffix in ("pdf", "png")]
    assert all(path.read_bytes().startswith(b"%PDF") for path in paths[::2])
    assert all(imread(path)[..., :3].std() > 0.01 for path in paths[1::2]), "a picture is not blank"


@pytest.mark.slow
def test_a_metric_that_no_trial_has_is_not_drawn(
    store: Store, write_trial: Callable[..., None], tmp_path: Path
) -> None:
    write_trial("trak", 50, 0, fpr=np.nan, fnr=np.nan, auc=np.nan)
    paths = write_figures(store, EXPERIMENT, tmp_path / "figures")
    assert [path.stem for path in paths[::2]] == ["headline", "accuracy", "loss", "macro_f1"]


def test_of_few_seeds_each_is_a_point_and_no_band_is_drawn(store: Store, write_trial: Callable[..., None]) -> None:
    for seed in range(4):
        for num_removed in (50, 100):
            write_trial("trak", num_removed, seed, 0.01 * seed)
        write_trial("balanced", 137, seed, 0.01 * seed)
    axes = Figure().subplots()
    draw_metric(axes, read_trials(store, EXPERIMENT), "accuracy", "worst")
    assert not axes.collections or not [band for band in axes.collections if isinstance(band, PolyCollection)]
    trak, balanced = (line for line in axes.get_lines() if line.get_label() == POINTS and len(line.get_xdata()))
    assert sorted(map(tuple, trak.get_xydata().round(6))) == [(k, 0.7 + 0.01 * s) for k in (50, 100) for s in range(4)]
    np.testing.assert_allclose(sorted(balanced.get_ydata()), [0.7, 0.71, 0.72, 0.73])
    assert POINTS not in axes.get_legend_handles_labels()[1]


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_few_seeds_wide_ranges_and_unknown_methods_are_drawn(
    store: Store, write_trial: Callable[..., None], num_seeds: int
) -> None:
    for seed in range(num_seeds):
        for num_removed in (50, 100, 1000, 7000):
            write_trial("home_made", num_removed, seed, num_removed / 1e5)
        write_trial("balanced", 2600, seed, 0.05)
    figure = metric_figure(read_trials(store, EXPERIMENT), "fpr", ["dog"])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_xscale() == "symlog"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "100", "1,000"]
    assert {line.get_label() for line in axes.get_lines()} >= {"home made"}


def test_an_experiment_without_trials_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no test trial"):
        write_figures(store, EXPERIMENT, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
