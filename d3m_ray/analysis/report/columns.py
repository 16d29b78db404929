"""What the columns of the analysis tables are called on a page and what each means: the words of `columns.toml`."""

import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from d3m_ray.analysis.report.cells import FORMATS, TEXT_KINDS, Column

WORDS = Path(__file__).with_name("columns.toml")


def columns(*names: str) -> Sequence[Column]:
    """The columns of these names, in this order. Raises KeyError for one that has no words yet."""
    return [known_columns()[name] for name in names]


@cache
def known_columns() -> dict[str, Column]:
    """Every column that has words, by its name in the frames."""
    words = tomllib.loads(WORDS.read_text(encoding="utf-8"))
    return {name: _column(name, **of_column) for name, of_column in words.items()}


def _column(name: str, label: str, explanation: str, kind: str = "text", bounds: Sequence[str] = ()) -> Column:
    low, high = bounds or ("", "")
    return Column(
        name, label, explanation, FORMATS[kind], (low, high) if bounds else None, is_number=kind not in TEXT_KINDS
    )
