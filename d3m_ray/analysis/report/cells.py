"""Frames as tables of a page: each column with its label, its explanation, and how its values are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

MAX_ROWS = 400  # of a table on the page: more are for a program, which reads them from the store
MAX_COLUMNS = 40  # of a table on the page, as MAX_ROWS
SHOWN_ROWS = 15  # until all are asked for
MISSING = "\u2013"
MINUS = "\u2212"

Format = Callable[[Any], str]
"""A value that is not missing, as it is written."""


def as_seconds(value: float) -> str:
    """Seconds in the unit that a person would use."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _as_count(value: float) -> str:
    return "\u221e" if value == float("inf") else _with_minus(f"{value:,.0f}")


def _as_points(value: float) -> str:
    points = f"{100 * value:+.1f}"
    return "0.0" if points in ("+0.0", "-0.0") else _with_minus(points)


def _as_point_list(values: str) -> str:
    return "  ".join(_as_points(float(value)) for value in values.split())


def _with_minus(text: str) -> str:
    return text.replace("-", MINUS)


TEXT_KINDS = ("text", "point_list")
FORMATS: dict[str, Format] = {
    "text": str,
    "count": _as_count,
    "percent": lambda share: _with_minus(f"{100 * share:.1f}%"),
    "points": _as_points,  # a difference of shares in percentage points, with its sign
    "points_size": lambda share: f"{100 * share:.1f}",  # one that has no sign
    "point_list": _as_point_list,  # differences in one text, blanks between them
    "decimal": lambda number: _with_minus(f"{number:.3f}"),
    "signed": lambda number: _with_minus(f"{number:+.4f}"),
    "mean_count": lambda number: f"{number:,.1f}",
    "number": lambda number: _with_minus(f"{number:,.0f}" if 1e3 <= abs(number) < 1e9 else f"{number:#.4g}"),
    "ratio": lambda ratio: f"{ratio:.2f}\u00d7",
    "correlation": lambda correlation: _with_minus(f"{correlation:.2f}"),
    "p_value": lambda p: "<0.001" if p < 0.001 else f"{p:.3f}",
    "seconds": as_seconds,
}


@dataclass(frozen=True)
class Column:
    """One column of a table on the page."""

    name: str
    """Of the frame's column."""
    label: str
    """At its head."""
    explanation: str
    """A sentence: what it says, in which unit."""
    write: Format = str
    bounds: tuple[str, str] | None = None
    """The frame's columns of the lower and upper bound, written beside the value."""
    is_number: bool = True
    is_veiled: bool = False
    """Whether the value is hidden until a reader asks for it: texts of corpora may be offensive."""


@dataclass(frozen=True)
class Cell:
    """One value as it is written, and what it is sorted by."""

    text: str
    key: str
    """The raw value, empty where it is missing."""
    interval: str = ""
    bounds: tuple[str, str] | None = None
    """The raw bounds."""


@dataclass(frozen=True)
class TableView:
    """One table of the page."""

    id: str
    """Its anchor."""
    title: str
    introduction: str
    """What a row is, and what the table is for."""
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    num_rows: int
    """Of the frame; the page holds the first `MAX_ROWS` of them."""
    nothing: str = "The store holds nothing of this."
    """Said in place of a table without rows."""
    num_columns: int = 0
    """Of the frame that are asked for; the page holds the first `MAX_COLUMNS` of them."""

    @property
    def limits(self) -> str:
        """What of the frame the page does not hold, empty where it holds all."""
        parts = [
            f"the first {shown:,} of {number:,} {what}"
            for what, shown, number in (
                ("rows", len(self.rows), self.num_rows),
                ("columns", len(self.columns), self.num_columns),
            )
            if shown < number
        ]
        return f"This page has {' and '.join(parts)}; the store has the others." if parts else ""

    @property
    def num_shown(self) -> int:
        """Rows that are shown until all are asked for: hiding one or two would save nothing."""
        return len(self.rows) if len(self.rows) <= SHOWN_ROWS + 3 else SHOWN_ROWS


def table_view(
    id: str,  # noqa: A002 - of the HTML element
    title: str,
    introduction: str,
    frame: pd.DataFrame | None,
    columns: Sequence[Column],
    nothing: str = TableView.nothing,
) -> TableView:
    """The frame as a table of those columns that it has and that are not missing in every row."""
    if frame is None or frame.empty:
        return TableView(id, title, introduction, (), (), 0, nothing)
    shown = [c for c in columns if c.name in frame and frame[c.name].notna().any()]
    head = frame.head(MAX_ROWS)
    by_column = [_cells(head, column) for column in shown[:MAX_COLUMNS]]
    rows = list(zip(*by_column, strict=True))
    return TableView(id, title, introduction, shown[:MAX_COLUMNS], rows, len(frame), nothing, len(shown))


def _cells(frame: pd.DataFrame, column: Column) -> list[Cell]:
    values = frame[column.name].tolist()
    if column.bounds is None or not set(column.bounds) <= set(frame.columns):
        return [_cell(column, value, None) for value in values]
    low, high = (frame[name].tolist() for name in column.bounds)
    return [_cell(column, value, bounds) for value, *bounds in zip(values, low, high, strict=True)]


def _cell(column: Column, value: Any, bounds: Sequence[Any] | None) -> Cell:
    if _is_missing(value):
        return Cell(MISSING, "")
    text = column.write(value)
    if bounds is None:
        return Cell(text, _key(value))
    if any(_is_missing(bound) for bound in bounds):
        return Cell(text, _key(value), bounds=("", ""))
    low, high = bounds
    return Cell(text, _key(value), f"[{column.write(low)}, {column.write(high)}]", (_key(low), _key(high)))


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and np.isnan(value))


def _key(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.10g}".replace("inf", "Infinity")  # as JavaScript and pandas read it
