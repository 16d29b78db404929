"""Heat maps of means by cell, one panel per method, zero in the middle of the colours and each cell's number in it."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3m_ray.analysis.figures.lettering import key_lines, legible, shortened, text_inches
from d3m_ray.analysis.figures.page import MARGIN, WIDTH, Page, head
from d3m_ray.analysis.figures.style import DIVERGING, INK, house_style
from d3m_ray.analysis.results import Results

CELL_INCHES = (0.34, 0.62)  # least and greatest width of a cell
ROW_INCHES = 0.24
NUMBER_POINTS = 7.0
BETWEEN_INCHES = 0.25
REACH = 0.85  # of the colour map's half that the largest value takes: text stays legible on it
DARK = 0.55  # luminance below which a cell's number is white


def score_heat_maps(results: Results, means: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean score of each train group (rows) for each query set (columns), by method; `means` as of `mean_scores`."""
    caption = (
        "Each number is the mean score of the row's train examples for the column's query set, positive where they "
        f"raise its {results.explained}. "
    )
    title = "Mean attribution score, train group by query group"
    return _heat_maps(results, means, title, "query group", "train group", caption)


def alignment_heat_maps(results: Results, means: Mapping[str, pd.DataFrame]) -> Figure:
    """Mean alignment of each train group (rows) and label (columns), by method; `means` as of `mean_alignments`."""
    caption = (
        "Each number is the mean group alignment of the cell's train examples: low means that they hurt the groups "
        "that the model fails on. "
    )
    return _heat_maps(results, means, "Mean group alignment, train group by label", "label", "train group", caption)


def _heat_maps(
    results: Results, means: Mapping[str, pd.DataFrame], title: str, across: str, up: str, caption: str
) -> Figure:
    """Panels of one size, as many in a row as the page holds."""
    with house_style():
        row_names = [name for frame in means.values() for name in frame.index]
        column_names = [name for frame in means.values() for name in frame.columns]
        names = shortened([*row_names, *column_names])
        page = Page(title, results)
        left = max(text_inches(names[name]) for name in row_names) + 0.35
        num_columns = max(len(frame.columns) for frame in means.values())
        room = WIDTH - 2 * MARGIN - left
        per_row = max(1, min(len(means), int((room + BETWEEN_INCHES) / (num_columns * 0.42 + BETWEEN_INCHES))))
        cell = float(
            np.clip((room + BETWEEN_INCHES) / per_row / num_columns - BETWEEN_INCHES / num_columns, *CELL_INCHES)
        )
        width = cell * num_columns
        right = room + MARGIN - per_row * width - (per_row - 1) * BETWEEN_INCHES
        tall = max(text_inches(names[name]) for name in column_names)
        is_upright = tall > cell - 0.06
        below = (tall if is_upright else 0.1) + 0.15
        height = ROW_INCHES * max(len(frame) for frame in means.values())
        lengths = [len(part) for part in _parts(list(means), per_row)]
        gaps = {"between": BETWEEN_INCHES, "above": 0.25, "below": below}
        panels = page.panels(lengths, height, left, max(right, MARGIN), **gaps)
        for axes_row, methods in zip(panels, _parts(list(means), per_row), strict=True):
            for axes, method in zip(axes_row, methods, strict=True):
                frame = means[method]
                unit = _draw(axes, frame.to_numpy(dtype=np.float64), cell)
                head(axes, legible(method) + (f", in units of {unit}" if unit else ""))
                axes.set_yticks(range(len(frame)), [names[name] if axes is axes_row[0] else "" for name in frame.index])
                axes.set_xticks(range(len(frame.columns)), [names[name] for name in frame.columns])
                axes.tick_params(axis="x", rotation=90 if is_upright else 0)
        page.label_axes(panels, across=across, up=up)
        ending = "White is zero, the darkest colour each panel's largest magnitude. No interval is shown."
        return page.finish([caption + ending], key_lines(names))


def _parts(methods: Sequence[str], length: int) -> list[Sequence[str]]:
    return [methods[start : start + length] for start in range(0, len(methods), length)]


def _draw(axes: Axes, values: np.ndarray, cell: float) -> str:
    """Draw the cells and their numbers; what the numbers are multiples of, as `1e-03`, empty where of 1."""
    largest = float(np.nanmax(np.abs(values))) if np.isfinite(values).any() else 0.0
    exponent = int(np.floor(np.log10(largest))) if largest > 0 else 0
    exponent = 0 if -1 <= exponent <= 1 else exponent
    scaled = values / 10.0**exponent
    limit = largest / REACH or 1.0
    edges = (np.arange(size + 1) - 0.5 for size in reversed(values.shape))
    mesh = axes.pcolormesh(
        *edges, np.ma.masked_invalid(values), cmap=DIVERGING, vmin=-limit, vmax=limit, edgecolors="white"
    )
    mesh.set(linewidth=0.5)
    num_rows, num_columns = values.shape
    digits = 2 if exponent or largest < 10 else 1
    texts = [[_number(value, digits) for value in row] for row in scaled]
    widest = max((text_inches(text, NUMBER_POINTS) for row in texts for text in row), default=0.0)
    points = min(NUMBER_POINTS, NUMBER_POINTS * (cell - 0.04) / max(widest, 1e-9))
    _write(axes, values / limit, texts, points)
    axes.set(xlim=(-0.5, num_columns - 0.5), ylim=(num_rows - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return f"1e{exponent}".replace("-", "\N{MINUS SIGN}") if exponent else ""


def _number(value: float, digits: int) -> str:
    """A number that may be missing; of what rounds to 0, the sign is left out."""
    if not np.isfinite(value):
        return ""
    return f"{round(value, digits) or 0.0:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def _write(axes: Axes, values: np.ndarray, texts: Iterable[Iterable[str]], points: float) -> None:
    """The cells' numbers, white where the cell is dark; `values` are between -1 and 1."""
    shades = colormaps[DIVERGING]((np.nan_to_num(values) + 1) / 2)[..., :3] @ (0.299, 0.587, 0.114)
    for row, of_row in enumerate(texts):
        for column, text in enumerate(of_row):
            colour = "white" if shades[row, column] < DARK else INK
            axes.text(column, row, text, ha="center", va="center", fontsize=points, color=colour)
