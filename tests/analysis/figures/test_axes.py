from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from d3m_ray.analysis.figures.axes import number_axis, share_axis, tick_label, value_axes
from d3m_ray.analysis.figures.style import house_style


def axes_of(width: float = 2.0, height: float = 2.0) -> Axes:
    with house_style():
        figure = Figure(figsize=(width, height), dpi=100)
        return figure.add_axes((0, 0.2, 1, 0.6))


def assert_apart(axes: Axes) -> list[str]:
    """No two tick labels touch, by their drawn extents; returns the labels."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    with house_style():
        figure.canvas = canvas = FigureCanvasAgg(figure)
        canvas.draw()
        shown = [label for label in axes.get_xticklabels() if label.get_text()]
        boxes = sorted((label.get_window_extent() for label in shown), key=lambda box: box.x0)
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
    return [label.get_text() for label in shown]


@pytest.mark.parametrize(
    ("numbers", "labels"),
    [
        ({50, 100, 200}, ["0", "50", "100", "200"]),
        ({22, 24, 200}, ["0", "22", "200"]),
        ({1, 2, 1000}, ["0", "1", "2", "1,000"]),
        (set(range(0, 2000, 50)), None),
        ({7}, ["0", "7"]),
        (set(), None),
        ({1, 10_000_000}, ["0", "10,000,000"]),
    ],
)
def test_labels_of_close_numbers_do_not_touch(numbers: set[int], labels: list[str] | None) -> None:
    axes = axes_of()
    number_axis(axes, numbers)
    shown = assert_apart(axes)
    assert labels is None or shown == labels
    assert set(axes.get_xticks()) == numbers | {0}, "each number keeps its tick"


def test_numbers_of_lines_keep_their_labels_before_those_of_markers() -> None:
    axes = axes_of()
    number_axis(axes, {100, 200}, {98, 202})
    assert {"100", "200"} - set(assert_apart(axes)) == {"200"}, "but the largest says how far the axis goes"


@pytest.mark.parametrize("numbers", [{50, 100, 200}, {1, 2, 22, 24, 4000}])
def test_the_second_axis_has_the_shares_of_the_same_places(numbers: set[int]) -> None:
    axes = axes_of(6)
    number_axis(axes, numbers)
    share_axis(axes, 8000)
    figure = axes.figure
    assert isinstance(figure, Figure)
    top = figure.axes[1]
    np.testing.assert_array_equal(top.get_xticks(), axes.get_xticks())
    at = [a.transScale.transform(np.c_[a.get_xticks(), np.zeros(len(numbers) + 1)]) for a in (axes, top)]
    np.testing.assert_allclose(at[0], at[1])
    labels = assert_apart(top)
    assert labels[-1] == f"{max(numbers) / 80:.3g}%"


def test_a_row_has_one_scale_and_no_tick_beyond_what_can_be() -> None:
    with house_style():
        row = list(Figure().subplots(1, 3))
    value_axes(row, np.array([0.62, 0.999, np.nan]), (0.0, 1.0), is_percent=True)
    assert len({axes.get_ylim() for axes in row}) == 1
    assert row[0].get_ylim()[1] > 1.0, "a marker at 100% is whole"
    labels = [tick.get_text() for tick in row[0].get_yticklabels()]
    assert labels[-1] == "100%"
    assert not any(tick.get_text() for axes in row[1:] for tick in axes.get_yticklabels())


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0], [], [0.5, 0.5]])
def test_values_that_are_all_alike_have_a_scale(values: list[float]) -> None:
    axes = axes_of()
    value_axes([axes], np.array(values), (0.0, 1.0), is_percent=True)
    low, high = axes.get_ylim()
    assert low < high
    assert all(0 <= tick <= 1 for tick in axes.get_yticks())


def test_ticks_say_sign_and_unit() -> None:
    assert [tick_label(0.25, is_percent=True), tick_label(-2.5, sign="+"), tick_label(2, sign="+")] == [
        *("25%", "\N{MINUS SIGN}2.5", "+2")
    ]
    assert tick_label(0.0, sign="+") == "0"
