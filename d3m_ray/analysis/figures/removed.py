"""What each arm removed from each cell of train, beside the cell's share of train: what random removal takes of it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from d3m_ray.analysis.figures.axes import tick_label, ticks_within
from d3m_ray.analysis.figures.lettering import key_lines, legible, shortened, text_inches
from d3m_ray.analysis.figures.page import Page, head, line_handle, rule
from d3m_ray.analysis.figures.sizes import BAR_INCHES, BARS_SHARE, MIN_ROW_INCHES, labels_in_order
from d3m_ray.analysis.figures.style import INK, house_style, label_style, method_order
from d3m_ray.analysis.results import Results

MAX_COLUMNS = 3  # a page is 8.5 inches wide
CHANCE_MARKS: Mapping[str, Any] = {"marker": "|", "color": INK, "linestyle": "none", "markeredgewidth": 1.4}


def shown_arms(removed: pd.DataFrame, chosen: Mapping[str, int]) -> list[tuple[str, int]]:
    """The arms that the figure shows: every method at the number chosen on val, in the order of methods."""
    of_table = set(removed[["method", "num_removed"]].itertuples(index=False, name=None))
    return [(m, chosen[m]) for m in method_order(removed["method"]) if (m, chosen.get(m)) in of_table]


def removed_figure(results: Results, removed: pd.DataFrame, chosen: Mapping[str, int]) -> Figure:
    """A panel per method at its number chosen on val, a bar per cell; `removed` is the table of what was removed."""
    with house_style():
        arms = shown_arms(removed, chosen)
        groups, label_names = sorted(removed["group"].unique()), labels_in_order(results, removed)
        names = shortened([*groups, *label_names])
        page = Page("What was removed from each cell of train, against its share by chance", results)
        handles = [
            *(Patch(**label_style(p)) for p in range(len(label_names))),
            line_handle(markersize=8, **CHANCE_MARKS),
        ]
        page.legend(handles, [*(names[name] for name in label_names), "share of train: by chance"])
        height = len(groups) * max(MIN_ROW_INCHES, BAR_INCHES * len(label_names) / BARS_SHARE)
        left = max(text_inches(names[group]) for group in groups) + 0.12
        num_columns = min(MAX_COLUMNS, len(arms))
        of_rows = [arms[start : start + num_columns] for start in range(0, len(arms), num_columns)]
        panels = page.panels([len(row) for row in of_rows], height, left, above=0.3, between=0.4)
        most = 1.06 * max(removed["share"].max(), removed["share_by_chance"].max())
        for axes_row, arms_row in zip(panels, of_rows, strict=True):
            for axes, (method, number) in zip(axes_row, arms_row, strict=True):
                rows = removed[(removed["method"] == method) & (removed["num_removed"] == number)]
                shares, by_chance = (
                    rows.pivot(index="group", columns="label_name", values=column)
                    .reindex(index=groups, columns=label_names)
                    .to_numpy()
                    for column in ("share", "share_by_chance")
                )
                _draw_panel(axes, shares, by_chance, most)
                axes.set_yticks(range(len(groups)), [names[group] if axes is axes_row[0] else "" for group in groups])
                head(axes, f"{legible(method)}, {number:,} removed")
        page.label_axes(panels, across="share of the removed examples")
        caption = (
            "Bars are each cell's share of what the method removed, at the number chosen on val, a mean over seeds "
            "where the removal is random; ticks are the cell's share of train, which random removal takes on average. "
            "No interval is shown. All panels share one scale."
        )
        return page.finish([caption], key_lines(names))


def _draw_panel(axes: Axes, shares: np.ndarray, by_chance: np.ndarray, most: float) -> None:
    """Both are [groups, labels], NaN where train has no such cell."""
    num_groups, num_labels = shares.shape
    width = BARS_SHARE / num_labels
    rule(axes, "x")
    for label in range(num_labels):
        places = np.arange(num_groups) + (label - (num_labels - 1) / 2) * width
        axes.barh(places, np.nan_to_num(shares[:, label]), width, zorder=2, **label_style(label))
        size = min(8.0, 72 * MIN_ROW_INCHES * width)
        axes.plot(by_chance[:, label], places, **CHANCE_MARKS, markersize=size, zorder=3)
    axes.set_ylim(num_groups - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, min(most, 1.0) if most > 0 else 1.0)
    ticks = ticks_within(*axes.get_xlim(), (0.0, 1.0))
    axes.set_xticks(ticks, [tick_label(tick, is_percent=True) for tick in ticks])
