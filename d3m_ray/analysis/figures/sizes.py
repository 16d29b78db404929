"""The figure of how many examples each group has by label in each split."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from d3m_ray.analysis.figures.axes import ticks_within
from d3m_ray.analysis.figures.lettering import key_lines, shortened, text_inches
from d3m_ray.analysis.figures.page import Page, head, rule
from d3m_ray.analysis.figures.style import INK, house_style, label_style
from d3m_ray.analysis.results import Results

BAR_INCHES = 0.1
COUNT_POINTS = 6
ROOM = 1.2  # of the longest bar, for the count behind it
MIN_ROW_INCHES = 0.24  # of a group, however few its labels
BARS_SHARE = 0.8  # of a row that its bars take
SPLITS = ("train", "val", "test")


def distribution_figure(results: Results, distribution: pd.DataFrame) -> Figure:
    """One panel per split, one bar per group and label; `distribution` has split, group, label_name, num_examples."""
    with house_style():
        groups, label_names = sorted(distribution["group"].unique()), labels_in_order(results, distribution)
        splits = [split for split in SPLITS if split in set(distribution["split"])]
        page = Page("Examples of each group by label", results)
        names = shortened([*groups, *label_names])
        page.legend(
            [Patch(**label_style(place)) for place in range(len(label_names))], [names[name] for name in label_names]
        )
        height = len(groups) * max(MIN_ROW_INCHES, BAR_INCHES * len(label_names) / BARS_SHARE)
        left = max(text_inches(names[group]) for group in groups) + 0.12
        (panels,) = page.panels([len(splits)], height, left, above=0.3)
        for position, (axes, split) in enumerate(zip(panels, splits, strict=True)):
            counts = distribution[distribution["split"] == split].pivot(
                index="group", columns="label_name", values="num_examples"
            )
            counts = counts.reindex(index=groups, columns=label_names).fillna(0)
            _draw_split(axes, counts.to_numpy(), max(1, int(distribution["num_examples"].max())))
            axes.set_yticks(range(len(groups)), [names[group] if position == 0 else "" for group in groups])
            head(axes, f"{split} (n = {int(counts.to_numpy().sum()):,})")
        page.label_axes([panels], across="examples")
        caption = "Bars are counts, all panels on one scale. An example of two groups counts in both."
        return page.finish([caption], key_lines(names))


def labels_in_order(results: Results, table: pd.DataFrame) -> list[str]:
    """The table's labels in the order of the corpus, then any other."""
    present = set(table["label_name"])
    known = [name for name in results.label_names if name in present]
    return known + sorted(present - set(known))


def _draw_split(axes: Axes, counts: np.ndarray, most: int) -> None:
    """Counts are [groups, labels]."""
    num_groups, num_labels = counts.shape
    width = BARS_SHARE / num_labels
    rule(axes, "x")
    for label in range(num_labels):
        places = np.arange(num_groups) + (label - (num_labels - 1) / 2) * width
        axes.barh(places, counts[:, label], width, zorder=2, **label_style(label))
        for place, count in zip(places, counts[:, label], strict=True):
            axes.text(count, place, f" {count:,.0f}", va="center_baseline", fontsize=COUNT_POINTS, color=INK)
    axes.set_ylim(num_groups - 0.5, -0.5)  # the first group on top
    axes.tick_params(axis="y", length=0)
    axes.set_xlim(0, ROOM * most)
    ticks = [tick for tick in ticks_within(0, ROOM * most) if tick == int(tick)]
    axes.set_xticks(ticks, [f"{tick:,.0f}" for tick in ticks])
