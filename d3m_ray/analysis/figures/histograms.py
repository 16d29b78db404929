"""Distributions of alignments and of scores, one panel per method; what would be removed is marked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from d3m_ray.analysis.figures.axes import tick_label, ticks_within
from d3m_ray.analysis.figures.lettering import legible
from d3m_ray.analysis.figures.page import LEFT_INCHES, Page, head, line_handle, rule
from d3m_ray.analysis.figures.style import INK, SKY, VERMILION, house_style, method_order
from d3m_ray.analysis.results import Results
from d3m_ray.wording import counted

PANEL_INCHES = 1.5
MAX_COLUMNS = 3  # a page is 8.5 inches wide
NUM_BINS = 40
TAILS = (0.1, 99.9)  # percentiles between which the bins lie; what is beyond counts in the outermost
GREY_BARS: Mapping[str, Any] = {"facecolor": "#B8B8B8", "edgecolor": "#B8B8B8", "linewidth": 0}
REMOVED_BARS: Mapping[str, Any] = {"facecolor": VERMILION, "edgecolor": "white", "hatch": "////", "linewidth": 0}
TAILS_SENTENCE = "The outermost bars hold all that lies beyond them, about one value in a thousand at each end."


def alignment_figure(results: Results, chosen: Mapping[str, int]) -> Figure:
    """A histogram of each method's alignments; those that it removes at the number chosen on val are marked."""
    with house_style():
        methods = method_order(list(results.alignments))
        page = Page("Distribution of the group alignments", results)
        handles = [Patch(**GREY_BARS), Patch(**REMOVED_BARS), line_handle(color=INK, linewidth=1)]
        page.legend(
            handles, ["train examples", "removed, at the number chosen on val", "zero: a rule removes those below"]
        )
        for axes, method in _panels(page, methods, "alignment"):
            values = results.alignments[method]["alignment"].to_numpy(dtype=np.float64)
            number = chosen.get(method, 0)
            removed = np.sort(values)[:number]
            edges = _edges(values)
            shares = [_shares(of, edges, len(values)) for of in (values, removed)]
            _bars(axes, edges, shares[0], GREY_BARS)
            _bars(axes, edges, shares[1], REMOVED_BARS)
            axes.axvline(0, color=INK, linewidth=1)
            _scale(axes, edges, shares[0].max())
            head(axes, f"{legible(method)} (n = {len(values):,}" + (f", {number:,} removed)" if number else ")"))
        caption = (
            "Bars are shares of the train examples of each method; the hatched part has the lowest alignments. No "
            f"interval is shown. {TAILS_SENTENCE}"
        )
        return page.finish([caption])


def score_figure(results: Results) -> Figure:
    """A histogram of each method's scores, and of their means over the query sets by train example."""
    with house_style():
        methods = method_order(list(results.scores))
        page = Page("Distribution of the attribution scores", results)
        handles = [Patch(**GREY_BARS), line_handle(color=SKY, linewidth=1.6)]
        page.legend(handles, ["scores of train example and query set", "mean score of each train example"])
        for axes, method in _panels(page, methods, "score"):
            values = results.scores[method].values
            finite = values[np.isfinite(values)].astype(np.float64)
            edges = _edges(finite)
            shares = _shares(finite, edges, len(finite))
            of_examples = values.mean(axis=1, dtype=np.float64)
            means = _shares(of_examples[np.isfinite(of_examples)], edges, len(of_examples))
            _bars(axes, edges, shares, GREY_BARS)
            axes.stairs(means, edges, color=SKY, linewidth=1.6)
            axes.axvline(0, color=INK, linewidth=1)
            _scale(axes, edges, max(shares.max(), means.max()))
            head(axes, f"{legible(method)} ({counted(len(values), 'example')} x {values.shape[1]:,})")
        caption = (
            "Bars and lines are shares, each of its own kind; a score is positive where the train example raises the "
            f"{results.explained} of the query set. The vertical line is zero. No interval is shown. {TAILS_SENTENCE}"
        )
        return page.finish([caption])


def _panels(page: Page, methods: Sequence[str], across: str) -> list[tuple[Axes, str]]:
    num_columns = min(MAX_COLUMNS, len(methods))
    lengths = [min(num_columns, len(methods) - start) for start in range(0, len(methods), num_columns)]
    rows = page.panels(lengths, PANEL_INCHES, left=LEFT_INCHES, between=0.5, above=0.3)
    page.label_axes(rows, across=across, up="share")
    return list(zip([axes for row in rows for axes in row], methods, strict=True))


def _edges(values: np.ndarray) -> np.ndarray:
    """Bin edges around zero and all but the most extreme values."""
    low, high = np.percentile(values, TAILS) if len(values) else (0.0, 0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    return np.linspace(low, high, NUM_BINS + 1) if high > low else np.linspace(-1, 1, NUM_BINS + 1)


def _shares(values: np.ndarray, edges: np.ndarray, num_values: int) -> np.ndarray:
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(num_values, 1)


def _bars(axes: Axes, edges: np.ndarray, shares: np.ndarray, marks: Mapping[str, Any]) -> None:
    axes.stairs(shares, edges, fill=True, **marks)


def _scale(axes: Axes, edges: np.ndarray, most: float) -> None:
    rule(axes)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0, 1.08 * most)
    across, up = ticks_within(edges[0], edges[-1]), ticks_within(0, 1.08 * most, (0, 1))
    axes.set_xticks(across, [f"{tick:.3g}".replace("-", "\N{MINUS SIGN}") for tick in across])
    axes.set_yticks(up, [tick_label(tick, is_percent=True) for tick in up])
