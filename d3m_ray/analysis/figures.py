"""The counterfactual figures: a metric against the number of removed train examples, one line per method."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator

from d3m_ray.analysis.statistics import MIN_VALUES, bootstrap_interval
from d3m_ray.analysis.tables import identity_names, read_trials
from d3m_ray.metrics import METRICS
from d3m_ray.store import Store

# Okabe and Ito's colours, told apart with any colour vision; a method looks the same in every figure.
METHOD_STYLES = {
    "trak": ("#0072B2", "o"),
    "ekfac": ("#D55E00", "s"),
    "traker": ("#56B4E9", "v"),
    "kronfluence": ("#E69F00", "^"),
    "bm25": ("#009E73", "D"),
    "embedding": ("#CC79A7", "P"),
    "loss": ("#7B5EA7", "X"),
    "random": ("#767676", "."),
    "random_majority": ("#A6A6A6", "."),
    "balanced": ("#000000", "*"),
    "balanced_group": ("#000000", "<"),
    "balanced_label": ("#000000", ">"),
    "balanced_sampling": ("#8C6D31", "*"),
    "group_dro": ("#8C6D31", "s"),
    "jtt": ("#8C6D31", "^"),
    "dfr": ("#8C6D31", "v"),
}
OTHER_STYLE = ("#8C6D31", "h")
DASHED_METHODS = ("random", "random_majority")
RULE_SUFFIX = "_heuristic"  # drawn in the colour of the method whose scores the rule uses, as are the next two
VARIANT_LINES = {"_auto": (0, (1, 1)), "_helpful": (0, (5, 1, 1, 1))}
PLAIN_OBJECTIVE = "erm"

METRIC_TITLES = {
    "accuracy": "accuracy",
    "loss": "cross-entropy (nats)",
    "fpr": "false positive rate",
    "fnr": "false negative rate",
    "auc": "area under the ROC curve",
    "macro_f1": "macro F1",
}
PERCENT_METRICS = ("accuracy", "fpr", "fnr")
GROUP_TITLES = {"all": "all examples", "worst": "worst group", "worst_cell": "worst cell"}
HEADLINE = "headline"
PANEL_INCHES = (2.9, 2.3)
LEGEND_ENTRY_INCHES = 1.4
MAX_COLUMNS = 4
MAX_LABELLED_COUNTS = 6  # up to so many numbers removed, each is a tick
WIDE_RANGE = 20  # largest over smallest number removed above which the axis is logarithmic
INK, GRID, FONT_POINTS = "#333333", "#E4E4E4", 9
PNG_DPI = 200
POINTS = "_seeds"  # a label that begins with "_" stays out of the legend


def draw_metric(axes: Axes, trials: pd.DataFrame, metric: str, group: str) -> None:
    """Draw one metric of one group against the number removed; `trials` are rows of `read_trials`.

    A line is the mean over seeds and its band the 95% bootstrap interval; of too few seeds for one, each is a point. A
    method with a single number removed is a marker with an error bar, random removal is dashed, the model trained on
    everything is a thin horizontal line.
    """
    rows = trials[trials["group"] == group]
    base = rows[(rows["num_removed"] == 0) & (rows["objective"] == PLAIN_OBJECTIVE)].drop_duplicates("seed")
    if not base.empty:
        axes.axhline(base[metric].mean(), color=INK, linewidth=0.8, linestyle=":", label="nothing removed", zorder=1)
    for method in _methods(rows):
        _draw_method(axes, method, rows[rows["method"] == method], metric)
    _style_axes(axes, metric, sorted(set(rows["num_removed"])))


def metric_figure(trials: pd.DataFrame, metric: str, groups: Sequence[str] = ()) -> Figure:
    """One panel per group named, or for `all`, `worst` and each identity; the panels' vertical scales differ."""
    shown = list(groups) or ["all", "worst", *identity_names(trials["group"].unique())]
    num_rows = -(-len(shown) // MAX_COLUMNS)
    num_columns = -(-len(shown) // num_rows)
    size = (PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows + 0.8)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.07))
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes, group in zip(panels, shown, strict=False):
        draw_metric(axes, trials, metric, group)
        axes.set_title(_panel_title(trials, group), fontsize=FONT_POINTS + 1, loc="left", color=INK)
    for axes in panels[len(shown) :]:
        axes.set_axis_off()
    figure.supxlabel("train examples removed", fontsize=FONT_POINTS + 1, color=INK)
    figure.supylabel(METRIC_TITLES[metric], fontsize=FONT_POINTS + 1, color=INK)
    _add_legend(figure, panels[: len(shown)])
    return figure


def write_figures(store: Store, experiment: str, folder: Path, split: str = "test") -> list[Path]:
    """Write each of `METRICS` that a trial has (every group) and `headline` (accuracy of `all` and `worst`).

    Each as PDF and as PNG into the folder, made where there is none; returns the paths. Raises StoreError where the
    experiment has no trial.
    """
    trials = read_trials(store, experiment, split)
    figures = {HEADLINE: metric_figure(trials, "accuracy", ["worst", "all"])}
    figures |= {metric: metric_figure(trials, metric) for metric in METRICS if trials[metric].notna().any()}
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for name in figures for suffix in ("pdf", "png")]
    for path in paths:
        figures[path.stem].savefig(path, dpi=PNG_DPI)
    return paths


def _methods(rows: pd.DataFrame) -> list[str]:
    """Methods that remove something or train otherwise, in the order of `METHOD_STYLES`, the others after them."""
    order = {method: position for position, method in enumerate(METHOD_STYLES)}
    differs = (rows["num_removed"] > 0) | (rows["objective"] != PLAIN_OBJECTIVE)
    methods = rows.loc[differs, "method"].unique()
    return sorted(methods, key=lambda method: (order.get(_styled_as(method), len(order)), method))


def _styled_as(method: str) -> str:
    """The method of `METHOD_STYLES` whose scores, or kind, this one shares: `trak` for `trak_auto_heuristic`."""
    for suffix in (RULE_SUFFIX, "_helpful", "_auto"):
        method = method.removesuffix(suffix)
    return method


def _draw_method(axes: Axes, method: str, rows: pd.DataFrame, metric: str) -> None:
    colour, marker = METHOD_STYLES.get(_styled_as(method), OTHER_STYLE)
    counts = sorted(rows["num_removed"].unique().tolist())
    intervals = [bootstrap_interval(rows.loc[rows["num_removed"] == count, metric]) for count in counts]
    means = [interval.mean for interval in intervals]
    lows, highs = [interval.low for interval in intervals], [interval.high for interval in intervals]
    label = literal(method)
    few = rows[rows.groupby("num_removed")["seed"].transform("nunique") < MIN_VALUES]
    axes.plot(few["num_removed"], few[metric], ".", color=colour, markersize=4, alpha=0.6, label=POINTS, zorder=2)
    if len(counts) == 1:
        errors = [[means[0] - lows[0]], [highs[0] - means[0]]]
        points = axes.errorbar(counts, means, errors, fmt=marker, color=colour, capsize=2.5, label=label, zorder=4)
        points[0].set(markersize=7, markerfacecolor="white" if method.endswith(RULE_SUFFIX) else colour)
        return
    if not np.isnan(lows).all():
        axes.fill_between(counts, lows, highs, color=colour, alpha=0.16, linewidth=0, zorder=2)
    (line,) = axes.plot(counts, means, color=colour, marker=marker, markersize=4, linewidth=1.7, label=label, zorder=3)
    if method in DASHED_METHODS:
        line.set(linestyle=(0, (4, 2)), linewidth=1.3)
    for suffix, dashes in VARIANT_LINES.items():
        if suffix in method:
            line.set(linestyle=dashes, linewidth=1.3)


def _style_axes(axes: Axes, metric: str, counts: Sequence[int]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT_POINTS - 1, color=INK, labelcolor=INK, length=3)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.yaxis.set_major_formatter(_percent if metric in PERCENT_METRICS else _plain)
    removals = [count for count in counts if count > 0]
    if removals and removals[-1] > WIDE_RANGE * removals[0]:
        axes.set_xscale("symlog", linthresh=removals[0], linscale=0.4)
        axes.set_xlim(-0.3 * removals[0], 1.3 * removals[-1])
        axes.set_xticks([0, *(10**power for power in range(9) if removals[0] <= 10**power <= removals[-1])])
    elif len(counts) <= MAX_LABELLED_COUNTS:
        axes.set_xticks(counts)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:,.0f}")


def literal(name: str) -> str:
    """A group's, label's or method's name as it stands, blanks for underscores: `$` begins no formula."""
    return name.replace("_", " ").replace("$", r"\$")


def _percent(value: float, position: float) -> str:
    return f"{100 * value:.6g}%"


def _plain(value: float, position: float) -> str:
    return f"{value:.6g}"


def _panel_title(trials: pd.DataFrame, group: str) -> str:
    if group in ("worst", "worst_cell"):  # not the same examples in every trial
        return GROUP_TITLES[group]
    num_examples = trials.loc[trials["group"] == group, "num_examples"].iloc[0]
    return f"{GROUP_TITLES.get(group) or literal(group)} ({num_examples:,})"


def _add_legend(figure: Figure, panels: Sequence[Axes]) -> None:
    legends = [axes.get_legend_handles_labels() for axes in panels]
    handles = {label: handle for legend in legends for handle, label in zip(*legend, strict=True)}
    num_columns = min(len(handles), int(figure.get_figwidth() / LEGEND_ENTRY_INCHES))
    legend = figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=num_columns)
    legend.set(frame_on=False)
    for text in legend.get_texts():
        text.set(fontsize=FONT_POINTS, color=INK)
