"""One figure as a page of known places, in inches from its top: title, legend, panels, key, caption.

Every text is measured before it is placed, so nothing overlaps and no layout has to be solved.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text

from d3m_ray.analysis.figures.lettering import LABEL_POINTS, legible, text_inches, wrapped
from d3m_ray.analysis.figures.style import FAINT_INK, GRID, INK
from d3m_ray.analysis.results import Results
from d3m_ray.wording import counted

WIDTH = 8.5  # inches, of US letter paper; DIN A4 has 8.3
MARGIN = 0.15  # inches
LEFT_INCHES = 0.72  # beside panels whose vertical axis has numbers: the longest, and the name of the axis
TITLE_POINTS, CAPTION_POINTS = 10.0, 7.5
LEADING = 1.35 / 72  # inches of a line for each point of its size
LEGEND_HANDLE_INCHES = 0.5
LEGEND_LAYOUT: Mapping[str, Any] = {
    "loc": "upper left",
    "frameon": False,
    "fontsize": LABEL_POINTS,
    "borderpad": 0,
    "borderaxespad": 0,
    "labelspacing": 0.4,
    "columnspacing": 1.4,
    "handlelength": 2.6,
}


class Page:
    """A figure that grows downwards; `finish` gives it its height and its caption."""

    def __init__(self, title: str, results: Results, width: float = WIDTH) -> None:
        self.figure = Figure(figsize=(width, 1))
        self.width = width
        self._bottom = MARGIN
        self._texts: list[tuple[Text, float]] = []
        self._legends: list[tuple[Legend, float, float]] = []
        self._panels: list[tuple[Axes, tuple[float, float, float, float]]] = []
        lines = wrapped(legible(title), width - 2 * MARGIN, TITLE_POINTS, is_bold=True)
        heading = self.figure.suptitle("\n".join(lines), x=MARGIN / width, ha="left", va="top", color=INK)
        heading.set(fontsize=TITLE_POINTS, fontweight="bold", linespacing=1.2)
        self._texts.append((heading, self._bottom))
        self._bottom += len(lines) * TITLE_POINTS * LEADING
        self.write([setting_line(results)], LABEL_POINTS)
        self._bottom += 0.06

    def write(self, lines: Sequence[str], points: float = CAPTION_POINTS) -> None:
        """Write lines of text below what is there, each wrapped to the page's width."""
        for line in lines:
            parts = wrapped(legible(line), self.width - 2 * MARGIN, points)
            text = self.figure.text(MARGIN / self.width, 0, "\n".join(parts), va="top", linespacing=1.2)
            text.set(fontsize=points, color=FAINT_INK)
            self._texts.append((text, self._bottom))
            self._bottom += len(parts) * points * LEADING

    def legend(self, handles: Sequence[Artist], labels: Sequence[str], title: str = "") -> None:
        """Place a legend below what is there, in as many columns as fit."""
        if not handles:
            return
        title_inches = text_inches(title) + 0.15 if title else 0.0
        entry = max(map(text_inches, labels)) + LEGEND_HANDLE_INCHES + 0.15
        num_columns = max(1, min(len(labels), int((self.width - 2 * MARGIN - title_inches) / entry)))
        if title:
            text = self.figure.text(MARGIN / self.width, 0, title, va="top", fontsize=LABEL_POINTS, color=INK)
            self._texts.append((text, self._bottom))
        numbers = [str(number) for number in range(len(labels))]  # a label that begins with "_" would be left out
        legend = self.figure.legend(list(handles), numbers, ncols=num_columns, **LEGEND_LAYOUT)
        for text, label in zip(legend.get_texts(), labels, strict=True):
            text.set(text=label, color=INK)
        self._legends.append((legend, MARGIN + title_inches, self._bottom))
        self._bottom += -(-len(labels) // num_columns) * 1.45 * LABEL_POINTS / 72 + 0.1

    def panels(
        self, row_lengths: Sequence[int], height: float, left: float, right: float = MARGIN, **gaps: float
    ) -> list[list[Axes]]:
        """Rows of panels below what is there, all of the width that the longest row leaves them.

        `left` and `right` are what labels beside the panels take; `between` (0.2), `above` (0.25) and `below` (0.25)
        what stands between two panels of a row, and over and under each row.
        """
        between, above, below = (gaps.get(name, default) for name, default in GAPS.items())
        num_columns = max(row_lengths)
        width = (self.width - MARGIN - left - right - between * (num_columns - 1)) / num_columns
        rows = []
        for length in row_lengths:
            self._bottom += above
            rows.append(
                [self._panel(MARGIN + left + place * (width + between), width, height) for place in range(length)]
            )
            self._bottom += height + below
        return rows

    def label_axes(self, rows: Sequence[Sequence[Axes]], across: str = "", up: str = "") -> None:
        """Name the axes of all panels once: `across` below the last row, `up` at the left edge of the page."""
        places = dict(self._panels)
        of_rows = [places[axes] for row in rows for axes in row]
        if across:
            middle = (min(x for x, *_ in of_rows) + max(x + width for x, _, width, _ in of_rows)) / 2
            text = self.figure.text(middle / self.width, 0, across, ha="center", va="top", fontsize=LABEL_POINTS + 0.5)
            self._texts.append((text, self._bottom))
            self._bottom += (LABEL_POINTS + 0.5) * LEADING + 0.04
        if up:
            top, bottom = min(y for _, y, *_ in of_rows), max(y + height for _, y, _, height in of_rows)
            text = self.figure.text(MARGIN / self.width, 0, up, rotation=90, ha="left", va="center")
            text.set(fontsize=LABEL_POINTS + 0.5)
            self._texts.append((text, (top + bottom) / 2))

    def finish(self, caption: Sequence[str], key: Sequence[str] = ()) -> Figure:
        """Write the caption and the key of shortened names, and give all that was placed its place."""
        self._bottom += 0.08
        self.write(caption)
        self.write(key)
        height = self._bottom + MARGIN
        self.figure.set_size_inches(self.width, height)
        for text, y in self._texts:
            text.set_y(1 - y / height)
        for legend, x, y in self._legends:
            legend.set_bbox_to_anchor((x / self.width, 1 - y / height), self.figure.transFigure)
        for axes, (x, y, width, tall) in self._panels:
            axes.set_position((x / self.width, 1 - (y + tall) / height, width / self.width, tall / height))
        return self.figure

    def _panel(self, x: float, width: float, height: float) -> Axes:
        axes = self.figure.add_axes((x / self.width, 0, width / self.width, 1))  # how high is known at the end
        self._panels.append((axes, (x, self._bottom, width, height)))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=LABEL_POINTS, length=3, width=0.7)
        return axes


GAPS = {"between": 0.2, "above": 0.25, "below": 0.25}


def head(axes: Axes, text: str) -> None:
    """Write a panel's title over its left edge; a name in it is shortened beforehand."""
    axes.set_title(text, fontsize=LABEL_POINTS + 0.5, loc="left", pad=4)


def rule(axes: Axes, axis: Literal["x", "y"] = "y") -> None:
    """Draw the light lines that carry the eye from a tick into the panel."""
    axes.grid(axis=axis, color=GRID, linewidth=0.6)


def width_inches(axes: Axes) -> float:
    """How wide a panel is."""
    figure = axes.get_figure()
    return axes.get_position().width * figure.get_figwidth() if isinstance(figure, Figure) else 0.0


def line_handle(**marks: Any) -> Line2D:
    """The sample of a line or marker in a legend."""
    return Line2D([], [], **marks)


def setting_line(results: Results) -> str:
    """Corpus, model, seeds and number of test examples: `insects, tiny-bert; 6 seeds; 800 test examples`."""
    parts = [", ".join(str(results.configuration.get(name, "")) for name in ("dataset", "model"))]
    trials = results.trials
    if len(trials):
        parts.append(_seeds(trials))
        rows = trials.loc[trials["group"] == "all", "num_examples"]
        parts += [f"n = {rows.iloc[0]:,} test examples"] if len(rows) else []
    return "; ".join(parts)


def _seeds(trials: pd.DataFrame) -> str:
    counts = trials.groupby(["method", "num_removed"])["seed"].nunique()
    fewest, most = counts.min(), counts.max()
    return f"{fewest} to {most} seeds" if fewest != most else counted(most, "seed")
