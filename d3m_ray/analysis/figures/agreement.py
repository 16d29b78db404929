"""How far the methods agree: rank correlations of their alignments, and the overlap of what they would remove."""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3m_ray.analysis.figures.axes import number_axis, value_axes
from d3m_ray.analysis.figures.heat_maps import DARK
from d3m_ray.analysis.figures.lettering import key_lines, shortened, text_inches
from d3m_ray.analysis.figures.page import Page, head, line_handle, rule
from d3m_ray.analysis.figures.style import DIVERGING, GREY, INK, OTHER_COLOURS, OTHER_MARKERS, house_style, method_order
from d3m_ray.analysis.results import Results

PANEL_INCHES = 2.7
MAX_LINES = 10  # pairs of methods with a line of their own
SPEARMAN, OVERLAP = "spearman", "overlap"
CHANCE_MARKS: Mapping[str, Any] = {"color": GREY, "linestyle": (0, (4, 2)), "linewidth": 1.3}


def agreement_figure(results: Results, agreement: pd.DataFrame) -> Figure:
    """Spearman correlations as a matrix, overlap of the lowest against their number.

    `agreement` is the table of `agreement_table`, with two methods at least.
    """
    with house_style():
        methods = method_order([*agreement["first"].unique(), *agreement["second"].unique()])
        names = shortened(methods, 1.1)
        page = Page("Agreement of the methods on which train examples to remove", results)
        overlaps = agreement[(agreement["measure"] == OVERLAP) & agreement["value"].notna()]
        pairs = _pairs(methods, overlaps)
        marks = {
            pair: {"color": OTHER_COLOURS[place % 7], "marker": OTHER_MARKERS[place % 5], "linewidth": 1.3}
            for place, pair in enumerate(pairs)
        }
        handles = [line_handle(markersize=5, **marks[pair]) for pair in pairs] + [line_handle(**CHANCE_MARKS)]
        if len(overlaps):
            page.legend(handles, [f"{names[one]} and {names[other]}" for one, other in pairs] + ["by chance"])
        left = max(map(text_inches, names.values())) + 0.15
        gaps = {"between": 0.75, "above": 0.3, "below": max(left, 0.3)}
        (panels,) = page.panels([2 if len(overlaps) else 1], PANEL_INCHES, left, **gaps)
        _draw_matrix(panels[0], agreement[agreement["measure"] == SPEARMAN], methods)
        panels[0].set_yticks(range(len(methods)), names.values())
        panels[0].set_xticks(range(len(methods)), names.values(), rotation=90)
        head(panels[0], "Spearman correlation of alignments")
        for axes in panels[1:]:
            _draw_overlaps(axes, overlaps, marks)
            head(axes, "overlap of the lowest, by their number")
        caption = (
            "Left: rank correlation over all train examples, 1 where two methods order them alike, 0 by chance. Right: "
            "the share of one method's lowest alignments that are among as many lowest of the other; the dashed line "
            "is what two random choices share. No interval is shown: the alignments are single numbers."
        )
        hidden = len(list(combinations(methods, 2))) - len(pairs)
        caption += f" Of the pairs, the {len(pairs)} of largest and smallest overlap are drawn." if hidden > 0 else ""
        return page.finish([caption], key_lines(names))


Pair = tuple[str, str]


def _pairs(methods: list[str], overlaps: pd.DataFrame) -> list[Pair]:
    """The pairs that have a line: all, or those that agree most and those that agree least."""
    means = overlaps.groupby(["first", "second"])["value"].mean().sort_values(ascending=False)
    ordered = [(str(one), str(other)) for one, other in means.index]
    return ordered if len(ordered) <= MAX_LINES else ordered[: MAX_LINES // 2] + ordered[-MAX_LINES // 2 :]


def _draw_matrix(axes: Axes, rows: pd.DataFrame, methods: list[str]) -> None:
    places = {method: place for place, method in enumerate(methods)}
    values = np.where(np.eye(len(methods), dtype=bool), 1.0, np.nan)
    for row in rows.itertuples():
        one, other = places[str(row.first)], places[str(row.second)]
        values[one, other] = values[other, one] = row.value
    edges = np.arange(len(methods) + 1) - 0.5
    axes.pcolormesh(
        edges, edges, np.ma.masked_invalid(values), cmap=DIVERGING, vmin=-1.15, vmax=1.15, edgecolors="white"
    )
    shades = colormaps[DIVERGING]((np.nan_to_num(values) / 1.15 + 1) / 2)[..., :3] @ (0.299, 0.587, 0.114)
    points = float(np.clip(60 / len(methods), 4, 8))
    for (one, other), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
            colour = "white" if shades[one, other] < DARK else INK
            axes.text(other, one, text, ha="center", va="center", fontsize=points, color=colour)
    axes.set(xlim=(-0.5, len(methods) - 0.5), ylim=(len(methods) - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _draw_overlaps(axes: Axes, overlaps: pd.DataFrame, marks: dict[Pair, dict[str, Any]]) -> None:
    rule(axes)
    number_axis(axes, {int(number) for number in overlaps["num_removed"]})
    chance = overlaps.drop_duplicates("num_removed").sort_values("num_removed")
    numbers = [0, *chance["num_removed"].astype(int)]
    axes.plot(numbers, [0.0, *chance["by_chance"]], **CHANCE_MARKS, zorder=1)
    for (one, other), of_pair in overlaps.groupby(["first", "second"]):
        pair = (str(one), str(other))
        if pair in marks:
            rows = of_pair.sort_values("num_removed")
            axes.plot(
                rows["num_removed"].astype(int), rows["value"].astype(float), **marks[pair], markersize=4, clip_on=False
            )
    values = np.concatenate(
        [overlaps["value"].to_numpy(dtype=float), overlaps["by_chance"].to_numpy(dtype=float), [0.0]]
    )
    value_axes([axes], values, (0.0, 1.0), is_percent=True)
    axes.set_xlabel("lowest alignments compared", fontsize=8.5)
