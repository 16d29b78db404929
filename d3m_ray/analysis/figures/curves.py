"""The counterfactual figures: a metric against the number of removed train examples, one line per method."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from d3m_ray.analysis.choice import arms_of
from d3m_ray.analysis.corpus import trial_identities
from d3m_ray.analysis.figures.axes import DODGE_INCHES, PERCENT_METRICS, UPPER_BOUNDS, number_axis, value_axes
from d3m_ray.analysis.figures.bands import BAND_SENTENCE, mean_bands
from d3m_ray.analysis.figures.lettering import key_lines, legible, shortened
from d3m_ray.analysis.figures.page import LEFT_INCHES, Page, head, line_handle, rule
from d3m_ray.analysis.figures.style import INK, MethodStyle, house_style, method_order, method_styles
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.statistics import MIN_VALUES

METRIC_TITLES = {
    "accuracy": "accuracy",
    "loss": "cross-entropy (nats)",
    "fpr": "false positive rate",
    "fnr": "false negative rate",
    "auc": "area under the ROC curve",
    "macro_f1": "macro F1",
}
SUMMARIES = {"all": "all examples", "worst": "worst group", "worst_cell": "worst cell"}
BASE_LABEL = "nothing removed"
BASE = ""  # the method of base models here
MAX_COLUMNS = 4  # a page is 8.5 inches wide
PANEL_INCHES = 1.45
MAX_TITLE_INCHES = 1.05  # of a group's name: its number of examples stands behind it
ARM = ["method", "num_removed", "group"]
BASE_MARKS: Mapping[str, Any] = {"color": INK, "marker": "_", "markersize": 7, "markeredgewidth": 1.6}


def metric_figure(results: Results, metric: str) -> Figure:
    """Panels of `all`, `worst`, `worst_cell` and each identity that have the metric; one scale across each row."""
    with house_style():
        trials = each_model_once(results.trials)
        trials = trials[trials[metric].notna()]
        present = set(trials["group"])
        identities = [name for name in trial_identities(results) if name in present]
        summaries = [name for name in SUMMARIES if name in present]
        rows = [summaries, *(identities[i : i + MAX_COLUMNS] for i in range(0, len(identities), MAX_COLUMNS))]
        rows = [row for row in rows if row]
        page = Page(f"{METRIC_TITLES[metric].capitalize()} against the number of train examples removed", results)
        styles = method_styles(method_order([method for method in trials["method"].unique() if method != BASE]))
        add_legend(page, styles, has_base=BASE in set(trials["method"]))
        panels = page.panels([len(row) for row in rows], PANEL_INCHES, left=LEFT_INCHES)
        names = shortened(identities, MAX_TITLE_INCHES)
        for axes_row, groups in zip(panels, rows, strict=True):
            of_row = trials[trials["group"].isin(groups)]
            bands = mean_bands(of_row, ARM, metric)
            for axes, group in zip(axes_row, groups, strict=True):
                _draw_panel(axes, of_row[of_row["group"] == group], bands[bands["group"] == group], metric, styles)
                head(axes, _panel_title(trials, group, names))
            values = np.concatenate([of_row[metric], bands["low"], bands["high"]])
            value_axes(axes_row, values, (0.0, UPPER_BOUNDS.get(metric, np.inf)), metric in PERCENT_METRICS)
        page.label_axes(panels, across="train examples removed", up=METRIC_TITLES[metric])
        return page.finish(_caption(), key_lines(names))


def each_model_once(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials, with the base models, which every method has a row of, once and under the method `BASE`."""
    arms = arms_of(trials)
    base = trials.drop(arms.index).drop_duplicates(["seed", "group"]).assign(method=BASE)
    return pd.concat([base, arms], ignore_index=True)


def add_legend(page: Page, styles: Mapping[str, MethodStyle], has_base: bool) -> None:
    """The legend of methods, of the base model too where there is one."""
    handles = [line_handle(linestyle=style.dashes, markersize=5, **style.of_marker) for style in styles.values()]
    labels = [legible(method) for method in styles]
    if has_base:
        handles.append(line_handle(**BASE_MARKS, linestyle=":", linewidth=0.9))
        labels.append(BASE_LABEL)
    page.legend(handles, labels)


def _draw_panel(
    axes: Axes, rows: pd.DataFrame, bands: pd.DataFrame, metric: str, styles: Mapping[str, MethodStyle]
) -> None:
    rule(axes)
    numbers = {method: sorted(of["num_removed"].tolist()) for method, of in bands.groupby("method") if method != BASE}
    singles = {counts[0] for counts in numbers.values() if len(counts) == 1}
    at_zero = [method for method in styles if numbers.get(method) == [0]]
    number_axis(axes, {k for counts in numbers.values() if len(counts) > 1 for k in counts}, singles, len(at_zero) + 1)
    few = rows[rows.groupby(["method", "num_removed"])["seed"].transform("nunique") < MIN_VALUES]
    base = bands[bands["method"] == BASE]
    if len(base):
        axes.axhline(base["mean"].iloc[0], color=INK, linewidth=0.9, linestyle=":", zorder=1)
        _draw_single(axes, base, few[few["method"] == BASE], metric, BASE_MARKS)
    for method, style in styles.items():
        of_method, points = bands[bands["method"] == method], few[few["method"] == method]
        if len(of_method) == 1:
            place = 1 + at_zero.index(method) if method in at_zero else 0
            _draw_single(axes, of_method, points, metric, style.of_marker, place)
        elif len(of_method):
            _draw_line(axes, of_method, points, metric, style)


def _draw_line(axes: Axes, bands: pd.DataFrame, points: pd.DataFrame, metric: str, style: MethodStyle) -> None:
    axes.plot(points["num_removed"], points[metric], ".", color=style.colour, markersize=3, alpha=0.6, zorder=2)
    if bands["low"].notna().any():
        limits = (bands["num_removed"], bands["low"], bands["high"])
        axes.fill_between(*limits, color=style.colour, alpha=0.14, linewidth=0, zorder=2)
    marks = style.of_marker | {"linestyle": style.dashes, "linewidth": 1.4, "markersize": 4}
    axes.plot(bands["num_removed"], bands["mean"], **marks, zorder=3, clip_on=False)


def _draw_single(
    axes: Axes, bands: pd.DataFrame, points: pd.DataFrame, metric: str, marks: Mapping[str, Any], place: int = 0
) -> None:
    """A marker with its bar, `place` steps left of its number."""
    transform = axes.transData + ScaledTranslation(-DODGE_INCHES * place, 0, axes.figure.dpi_scale_trans)
    where: dict[str, Any] = {"transform": transform, "clip_on": False}
    axes.plot(points["num_removed"], points[metric], ".", color=marks["color"], markersize=3, alpha=0.6, **where)
    number, mean, low, high = bands[["num_removed", "mean", "low", "high"]].iloc[0]
    axes.plot([number, number], [low, high], color=marks["color"], linewidth=1.1, zorder=4, **where)
    axes.plot([number], [mean], **(dict(marks) | {"linestyle": "none", "markersize": 5}), zorder=5, **where)


def _panel_title(trials: pd.DataFrame, group: str, names: Mapping[str, str]) -> str:
    if group in ("worst", "worst_cell"):  # not the same examples in every trial
        return f"{SUMMARIES[group]} (by accuracy)"
    num_examples = trials.loc[trials["group"] == group, "num_examples"].iloc[0]
    return f"{SUMMARIES.get(group) or names[group]} (n = {num_examples:,})"


def _caption() -> list[str]:
    return [
        f"Lines and markers are means over seeds; {BAND_SENTENCE}. Arms of one number removed, and those that train "
        "otherwise, are markers. Panels of a row share one scale; the rows of panels do not."
    ]
