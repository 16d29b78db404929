"""Figures as parts of the page: drawn as SVG in the page itself, with the files beside it as links."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

NOT_FOR_A_PAGE = re.compile(
    r"<!--.*?-->|<\?.*?\?>|<!.*?>|<script\b.*?</script\s*>|<metadata>.*?</metadata>", re.DOTALL | re.IGNORECASE
)
VIEW_BOX = re.compile(r'viewBox="[-\d.]+ [-\d.]+ ([\d.]+) [\d.]+"')
DEFAULT_WIDTH = 612  # points: 8.5 inches, as figures/page.py draws
TITLE = re.compile(r"<title>(.*?)</title>", re.DOTALL)


@dataclass(frozen=True)
class Drawing:
    """One figure."""

    name: str
    title: str
    """What it shows, in words."""
    width: int
    """In points, drawn at its own size."""
    svg: Markup
    files: Sequence[str]
    """Relative addresses of the same figure as files."""


def drawings(figures: Mapping[str, str], files: Mapping[str, Sequence[str]]) -> list[Drawing]:
    """The figures, `<svg>` elements by name, in their order; what has no place inside a page is taken out."""
    return [_drawing(name, svg, files.get(name, ())) for name, svg in figures.items()]


def _drawing(name: str, svg: str, files: Sequence[str]) -> Drawing:
    found = TITLE.search(svg)
    title = Markup(found[1]).unescape() if found else ""
    body = NOT_FOR_A_PAGE.sub("", svg).strip()
    view_box = VIEW_BOX.search(svg)
    width = round(float(view_box[1])) if view_box else DEFAULT_WIDTH
    return Drawing(name, title or name.replace("_", " "), width, Markup(body), files)
