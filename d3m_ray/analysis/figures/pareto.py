"""Worst-group accuracy against overall accuracy: what an arm gains for the worst group, and what it costs."""

from itertools import product

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3m_ray.analysis.choice import WORST
from d3m_ray.analysis.figures.axes import padded, tick_label, ticks_within, value_axes
from d3m_ray.analysis.figures.bands import BAND_SENTENCE, mean_bands
from d3m_ray.analysis.figures.curves import BASE, BASE_LABEL, each_model_once
from d3m_ray.analysis.figures.lettering import legible, text_inches
from d3m_ray.analysis.figures.page import Page, line_handle, rule, width_inches
from d3m_ray.analysis.figures.style import INK, MethodStyle, house_style, method_order, method_styles
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.statistics import MIN_VALUES

HEIGHT_INCHES = 4.2
NUMBER_POINTS = 6.5
GAP_INCHES = 0.06  # between a marker and its number
BASE_STYLE = MethodStyle(INK, "X")
MARKER_INCHES = 0.09


def pareto_figure(results: Results) -> Figure:
    """One marker per arm at its mean accuracies over seeds, the number removed beside it where there is room."""
    with house_style():
        trials = each_model_once(results.trials)
        arms = _arm_means(trials)
        styles = method_styles(method_order([method for method in arms["method"].unique() if method != BASE]))
        page = Page("Worst-group accuracy against overall accuracy", results)
        handles = [line_handle(linestyle="none", markersize=5, **style.of_marker) for style in styles.values()]
        has_base = BASE in set(arms["method"])
        handles += [line_handle(linestyle="none", markersize=7, **BASE_STYLE.of_marker)] * has_base
        page.legend(handles, [legible(method) for method in styles] + [BASE_LABEL] * has_base)
        ((axes,),) = page.panels([1], HEIGHT_INCHES, left=0.62)
        _scale(axes, arms, trials)
        for method, style in {**styles, BASE: BASE_STYLE}.items():
            _draw_arms(axes, arms[arms["method"] == method], style)
            _draw_seeds(axes, trials[trials["method"] == method], style)
        _write_numbers(axes, arms, width_inches(axes), HEIGHT_INCHES)
        page.label_axes([[axes]], across="accuracy of all examples", up="worst-group accuracy")
        return page.finish(
            [
                "Markers are means over seeds, numbers beside them how many train examples are removed, where there is "
                f"room; {BAND_SENTENCE}. Up and to the right is better."
            ]
        )


def _arm_means(trials: pd.DataFrame) -> pd.DataFrame:
    """One row per arm: `mean`, `low` and `high` of `all` (with `_all`) and of `worst`."""
    by = ["method", "num_removed"]
    of_all, of_worst = (mean_bands(trials[trials["group"] == group], by, "accuracy") for group in ("all", WORST))
    return of_worst.merge(of_all, on=by, suffixes=("", "_all"))


def _scale(axes: Axes, arms: pd.DataFrame, trials: pd.DataFrame) -> None:
    few = _few(trials)
    points = {group: few.loc[few["group"] == group, "accuracy"] for group in ("all", WORST)}
    rule(axes, "y")
    rule(axes, "x")
    value_axes([axes], np.concatenate([*(arms[name] for name in ("mean", "low", "high")), points[WORST]]), (0, 1), True)
    across = np.concatenate([*(arms[name] for name in ("mean_all", "low_all", "high_all")), points["all"]])
    low, high = padded(across, (0.0, 1.0))
    axes.set_xlim(low, high)
    ticks = ticks_within(low, high, (0.0, 1.0))
    axes.set_xticks(ticks, [tick_label(tick, is_percent=True) for tick in ticks])


def _few(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials of arms with too few seeds for an interval."""
    num_seeds = trials.groupby(["method", "num_removed"])["seed"].transform("nunique")
    return trials[(num_seeds < MIN_VALUES) & (num_seeds > 1)]


def _draw_arms(axes: Axes, arms: pd.DataFrame, style: MethodStyle) -> None:
    axes.hlines(arms["mean"], arms["low_all"], arms["high_all"], color=style.colour, linewidth=0.8, alpha=0.4)
    axes.vlines(arms["mean_all"], arms["low"], arms["high"], color=style.colour, linewidth=0.8, alpha=0.4)
    axes.plot(arms["mean_all"], arms["mean"], color=style.colour, linewidth=0.6, linestyle=style.dashes, alpha=0.6)
    marks = style.of_marker | {"linestyle": "none", "markersize": 7 if style is BASE_STYLE else 5}
    axes.plot(arms["mean_all"], arms["mean"], **marks, zorder=4, clip_on=False)


def _draw_seeds(axes: Axes, trials: pd.DataFrame, style: MethodStyle) -> None:
    points = _few(trials).pivot(index=["num_removed", "seed"], columns="group", values="accuracy")
    if len(points):
        axes.plot(points["all"], points[WORST], ".", color=style.colour, markersize=3, alpha=0.6)


Box = tuple[float, float, float, float]


def _write_numbers(axes: Axes, arms: pd.DataFrame, width: float, height: float) -> None:
    """Numbers beside the markers, each on the first side where it touches neither marker nor other number."""
    places = axes.transLimits.transform(arms[["mean_all", "mean"]].to_numpy()) * (width, height)
    half = MARKER_INCHES / 2
    taken: list[Box] = [(x - half, y - half, x + half, y + half) for x, y in places]
    tall = NUMBER_POINTS / 72
    for (x, y), row in zip(places, arms.itertuples(), strict=True):
        if row.method == BASE:
            continue
        text = f"{row.num_removed:,}"
        wide = text_inches(text, NUMBER_POINTS)
        for right, up in SIDES:
            left = x + GAP_INCHES if right > 0 else x - GAP_INCHES - wide if right < 0 else x - wide / 2
            bottom = y + up * (GAP_INCHES + tall / 2) - tall / 2
            box = (left, bottom, left + wide, bottom + tall)
            if box[0] > 0 and box[2] < width and not any(_touch(box, other) for other in taken):
                taken.append(box)
                fractions = (left / width, (bottom + tall / 2) / height)
                axes.text(*fractions, text, transform=axes.transAxes, fontsize=NUMBER_POINTS, va="center_baseline")
                break


SIDES = sorted(product((1, 0, -1), (0, 1, -1)), key=lambda side: (side == (0, 0), -side[0], abs(side[1])))[:-1]


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
