"""The linear datamodeling scores of the methods, with their intervals."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3m_ray.analysis.figures.axes import padded, tick_label, ticks_within
from d3m_ray.analysis.figures.lettering import key_lines, shortened, text_inches
from d3m_ray.analysis.figures.page import Page, head, rule
from d3m_ray.analysis.figures.style import GREY, house_style, method_order, method_styles
from d3m_ray.analysis.lds import KINDS, STUDY, as_percent
from d3m_ray.analysis.results import Results

ROW_INCHES = 0.26


def lds_figure(results: Results, means: pd.DataFrame) -> Figure:
    """A marker per method with its interval beside the ceiling: a row of panels per study, one panel for each kind."""
    with house_style():
        methods = method_order(means["method"])
        names = shortened(methods)
        page = Page("Linear datamodeling score: how well scores predict retraining", results)
        kinds = [kind for kind in KINDS if kind in set(means["kind"])]
        studies = list(means.groupby(STUDY, sort=True))
        left = max(map(text_inches, names.values())) + 0.12
        above = 0.3 if len(studies) == 1 else 0.45
        rows = page.panels([len(kinds)] * len(studies), ROW_INCHES * len(methods) + 0.1, left, above=above)
        numbers = means[["lds", "lds_low", "lds_high", "ceiling"]].to_numpy().ravel()
        low, high = padded(np.concatenate([numbers, [0.0]]), (-1.0, 1.0))
        for panels, ((seeds, share), of_study) in zip(rows, studies, strict=True):
            for axes, kind in zip(panels, kinds, strict=True):
                _panel(axes, of_study[of_study["kind"] == kind], methods)
                ticks = ticks_within(low, high, (-1.0, 1.0))
                axes.set_xlim(low, high)
                axes.set_xticks(ticks, [tick_label(tick) for tick in ticks])
                axes.set_yticks(range(len(methods)), names.values() if axes is panels[0] else [""] * len(methods))
                of_share = f"{as_percent(share)} kept{', base seeds' if seeds == 'base' else ''}, "
                head(axes, (of_share if len(studies) > 1 else "") + KINDS[kind])
        page.label_axes(rows, across="mean rank correlation of predicted and retrained outcomes")
        return page.finish([_caption(means)], key_lines(names))


def _panel(axes: Axes, rows: pd.DataFrame, methods: Sequence[str]) -> None:
    styles = method_styles(methods)
    rule(axes, "x")
    axes.axvline(0, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
    for ceiling in rows["ceiling"].dropna().unique()[:1]:
        axes.axvline(ceiling, color=GREY, linewidth=1.2, linestyle=(0, (1, 1.5)), zorder=1)
    for method, of_method in rows.groupby("method"):
        style, place = styles[str(method)], np.full(len(of_method), methods.index(str(method)))
        axes.hlines(place, of_method["lds_low"], of_method["lds_high"], color=style.colour, linewidth=1.2)
        axes.plot(of_method["lds"], place, **(style.of_marker | {"markersize": 6}), zorder=4)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _caption(means: pd.DataFrame) -> str:
    num_subsets = means["num_subsets"]
    how_many = f"{num_subsets.min():,}" if num_subsets.min() == num_subsets.max() else "their"
    caption = (
        f"Bars are 95% bootstrap intervals over {how_many} random subsets of train, from ten on; the dashed line, "
        "zero, is what random scores come to."
    )
    if means["ceiling"].isna().all():
        return caption
    return f"{caption} The dotted line is the ceiling: what a perfect forecast of what seeds share would reach."
