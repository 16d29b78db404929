"""The linear datamodeling scores of the methods, with their intervals."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from d3m_ray.analysis.datamodeling import MEAN
from d3m_ray.analysis.figures.axes import padded, tick_label, ticks_within
from d3m_ray.analysis.figures.lettering import key_lines, shortened, text_inches
from d3m_ray.analysis.figures.page import Page, head, rule
from d3m_ray.analysis.figures.style import GREY, house_style, method_order, method_styles
from d3m_ray.analysis.results import Results

ROW_INCHES = 0.26
KINDS = {"query": "per val example", "group": "per group"}


def mean_lds(lds: pd.DataFrame) -> pd.DataFrame:
    """The rows of an experiment's `lds` that the figure shows: means over all targets, over the most subsets."""
    means = lds[(lds["target"] == MEAN) & lds["lds"].notna()]
    return means[means["num_subsets"] == means.groupby("method")["num_subsets"].transform("max")]


def lds_figure(results: Results, means: pd.DataFrame) -> Figure:
    """A marker per method with its interval, a panel for scores per val example and one for scores per group."""
    with house_style():
        methods = method_order(means["method"])
        styles, names = method_styles(methods), shortened(methods)
        page = Page("Linear datamodeling score: how well scores foretell retraining", results)
        kinds = [kind for kind in KINDS if kind in set(means["kind"])]
        left = max(map(text_inches, names.values())) + 0.12
        (panels,) = page.panels([len(kinds)], ROW_INCHES * len(methods) + 0.1, left, above=0.3)
        low, high = padded(
            np.concatenate([means[["lds", "lds_low", "lds_high"]].to_numpy().ravel(), [0.0]]), (-1.0, 1.0)
        )
        ticks = ticks_within(low, high, (-1.0, 1.0))
        for axes, kind in zip(panels, kinds, strict=True):
            rule(axes, "x")
            axes.axvline(0, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
            for method, rows in means[means["kind"] == kind].groupby("method"):
                style, place = styles[str(method)], np.full(len(rows), methods.index(str(method)))
                axes.hlines(place, rows["lds_low"], rows["lds_high"], color=style.colour, linewidth=1.2)
                axes.plot(rows["lds"], place, **(style.of_marker | {"markersize": 6}), zorder=4)
            axes.set_xlim(low, high)
            axes.set_xticks(ticks, [tick_label(tick) for tick in ticks])
            axes.set_yticks(range(len(methods)), names.values() if axes is panels[0] else [""] * len(methods))
            axes.set_ylim(len(methods) - 0.5, -0.5)
            axes.tick_params(axis="y", length=0)
            head(axes, KINDS[kind])
        page.label_axes([panels], across="mean rank correlation of foretold and retrained margins")
        num_subsets = means["num_subsets"]
        how_many = f"{num_subsets.min():,}" if num_subsets.min() == num_subsets.max() else "their"
        caption = (
            f"Bars are 95% bootstrap intervals over {how_many} random halves of train, from ten on; the dashed line, "
            "zero, is what random scores come to."
        )
        return page.finish([caption], key_lines(names))
