"""How figures look: colours, markers and hatches that are told apart with any colour vision, and in grey."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import matplotlib.style

from d3m_ray.analysis.figures.lettering import font_families

# Okabe and Ito (2008), without the yellow that a white page swallows.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#0072B2", "#D55E00", "#CC79A7"),
)
GREY, BROWN = "#767676", "#8C6D31"
INK, FAINT_INK, GRID = "#333333", "#5A5A5A", "#E4E4E4"
DIVERGING = "PuOr_r"  # orange to purple by way of white; both ends are dark in grey, and each cell is annotated

BASE_STYLES = {
    "trak": (BLUE, "o"),
    "ekfac": (VERMILION, "s"),
    "traker": (SKY, "v"),
    "kronfluence": (ORANGE, "^"),
    "bm25": (GREEN, "D"),
    "embedding": (PURPLE, "P"),
    "loss": ("#7B5EA7", "X"),
    "random": (GREY, "."),
    "random_majority": (GREY, "x"),
    "balanced": (BLACK, "*"),
    "balanced_group": (BLACK, "<"),
    "balanced_label": (BLACK, ">"),
    "balanced_sampling": (BROWN, "*"),
    "group_dro": (BROWN, "s"),
    "jtt": (BROWN, "^"),
    "dfr": (BROWN, "v"),
}
OTHER_COLOURS, OTHER_MARKERS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, BLACK, SKY), ("h", "p", "8", "d", "H")
DASHED_METHODS = ("random", "random_majority")
# A variant has the colour and marker of its method; how the marker is filled, and the line is drawn, tells them apart.
# The best number's points are its method's own, so they look the same.
VARIANTS = (
    ("_auto_best", "left", (0, (6, 1))),
    ("_best", "full", (0, (6, 1))),
    ("_auto_heuristic", "bottom", (0, (1, 1))),
    ("_auto_helpful", "top", (0, (1, 1, 4, 1))),
    ("_heuristic", "none", (0, (3, 1))),
    ("_helpful", "right", (0, (5, 1, 1, 1))),
    ("_auto", "left", (0, (1, 1))),
)
LABEL_COLOURS = (SKY, VERMILION, GREEN, PURPLE, ORANGE, BLUE, GREY, BLACK)
LABEL_HATCHES = ("", "////", "----", "\\\\\\\\", "xxxx", "||||", "++++")  # 7 beside 8 colours: 56 pairs, none twice


@dataclass(frozen=True)
class MethodStyle:
    """The marks of one method, the same in every figure."""

    colour: str
    marker: str
    fill: str = "full"
    """How much of the marker is filled: a `fillstyle` of matplotlib."""
    dashes: Any = "solid"
    """A `linestyle` of matplotlib."""

    @property
    def of_marker(self) -> dict[str, Any]:
        """Arguments of a plotted marker."""
        return {
            "marker": self.marker,
            "fillstyle": self.fill,
            "markerfacecoloralt": "white",
            "markerfacecolor": "white" if self.fill == "none" else self.colour,
            "color": self.colour,
        } | ({"fillstyle": "full"} if self.fill == "none" else {})


def method_styles(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """By method, its marks; those that no release knew get the rest of the marks, in the order of their names."""
    unknown = sorted({_base_of(method)[0] for method in methods} - set(BASE_STYLES))
    num_colours, num_markers = len(OTHER_COLOURS), len(OTHER_MARKERS)
    others = {
        name: (OTHER_COLOURS[position % num_colours], OTHER_MARKERS[position % num_markers])
        for position, name in enumerate(unknown)
    }
    marks = BASE_STYLES | others
    styles = {}
    for method in methods:
        base, fill, dashes = _base_of(method)
        styles[method] = MethodStyle(*marks[base], fill, (0, (4, 2)) if base in DASHED_METHODS else dashes)
    return styles


def label_style(position: int) -> dict[str, Any]:
    """Arguments of the bars of the label at this position: no two of 56 have both colour and hatch in common."""
    colour, hatch = LABEL_COLOURS[position % len(LABEL_COLOURS)], LABEL_HATCHES[position % len(LABEL_HATCHES)]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": "white" if hatch else colour, "linewidth": 0}


def method_order(methods: Iterable[str]) -> list[str]:
    """The methods, those known in the order of `BASE_STYLES` with their variants behind them, then the others."""
    order = {method: position for position, method in enumerate(BASE_STYLES)}
    return sorted(set(methods), key=lambda method: (order.get(_base_of(method)[0], len(order)), method))


def house_style() -> AbstractContextManager[None]:
    """The settings that a figure is made and saved under, whatever the user's own matplotlibrc says."""
    ours: dict[str, Any] = {
        "font.family": list(font_families()),
        "font.size": 8,
        "text.parse_math": False,  # a `$` in a name is a dollar
        "axes.unicode_minus": True,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.7,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "hatch.linewidth": 0.7,
        "pdf.fonttype": 42,  # text that can be searched and edited
        "svg.fonttype": "path",  # the same on a machine without the font
    }
    return matplotlib.style.context(["default", ours])


def _base_of(method: str) -> tuple[str, str, Any]:
    """The method whose scores, or kind, this one shares, and the variant's marks: `trak` for `trak_auto_heuristic`."""
    for suffix, fill, dashes in VARIANTS:
        if method.endswith(suffix):
            return method.removesuffix(suffix), fill, dashes
    return method, "full", "solid"
