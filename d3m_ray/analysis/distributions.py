"""The figure of how many examples each group has by label in each split."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from d3m_ray.analysis.figures import FONT_POINTS, GRID, INK, PNG_DPI, literal
from d3m_ray.records import SPLIT_NAMES, Examples, Splits

LABEL_COLOURS = ("#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#E69F00", "#767676")
BAR_INCHES, MIN_PANEL_INCHES, HEIGHT_INCHES = 0.34, 2.4, 3.0
BARS_WIDTH = 0.8  # of all bars of a group, where groups stand 1 apart


def distribution_figure(splits: Splits) -> Figure:
    """One panel per split, one bar per group and label; the panels' vertical scales differ."""
    width = max(MIN_PANEL_INCHES, BAR_INCHES * len(splits.group_names))
    figure = Figure(figsize=(len(SPLIT_NAMES) * width, HEIGHT_INCHES), layout="constrained")
    panels = figure.subplots(1, len(SPLIT_NAMES))
    for axes, (split, examples) in zip(panels, splits.by_name().items(), strict=True):
        _draw_split(axes, examples, splits.group_names, splits.label_names)
        axes.set_title(f"{split} ({len(examples):,})", fontsize=FONT_POINTS + 1, loc="left", color=INK)
    panels[0].set_ylabel("examples", fontsize=FONT_POINTS + 1, color=INK)
    legend = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=splits.num_labels)
    legend.set(frame_on=False)
    for text in legend.get_texts():
        text.set(fontsize=FONT_POINTS, color=INK)
    return figure


def draw_group_distribution(splits: Splits, out_dir: Path) -> list[Path]:
    """Write `distribution.pdf` and `distribution.png` into the folder, made where there is none; returns the paths."""
    figure = distribution_figure(splits)
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / f"distribution.{suffix}" for suffix in ("pdf", "png")]
    for path in paths:
        figure.savefig(path, dpi=PNG_DPI)
    return paths


def _draw_split(axes: Axes, examples: Examples, group_names: tuple[str, ...], label_names: tuple[str, ...]) -> None:
    places = np.arange(len(group_names))
    width = BARS_WIDTH / len(label_names)
    for label, name in enumerate(label_names):
        counts = np.bincount(examples.groups[examples.labels == label], minlength=len(group_names))
        left = places + (label - (len(label_names) - 1) / 2) * width
        colour = LABEL_COLOURS[label % len(LABEL_COLOURS)]
        axes.bar(left, counts, width, color=colour, label=f"label {literal(name)}", zorder=2)
    axes.set_xticks(places, [literal(name) for name in group_names], rotation=45, ha="right")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT_POINTS - 1, color=INK, labelcolor=INK, length=3)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_formatter("{x:,.0f}")
