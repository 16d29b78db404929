"""The headline figure: how far worst-group accuracy is from random removal of as many, against how many are removed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from d3m_ray.analysis.choice import REFERENCE_METHOD, WORST
from d3m_ray.analysis.figures.axes import closest_inches, number_axis, share_axis, value_axes
from d3m_ray.analysis.figures.curves import BASE, each_model_once
from d3m_ray.analysis.figures.lettering import legible
from d3m_ray.analysis.figures.page import LEFT_INCHES, Page, line_handle, rule
from d3m_ray.analysis.figures.style import GREY, INK, MethodStyle, house_style, method_order, method_styles
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.statistics import CONFIDENCE, MIN_VALUES
from d3m_ray.wording import counted

HEIGHT_INCHES = 3.2
DODGE_INCHES = 0.07  # between the methods' markers at one number
DODGED_SHARE = 0.7  # of the room between two numbers that the markers at one of them take at most
RULE_SUFFIX = "_heuristic"
ZERO_LABELS = {REFERENCE_METHOD: "random removal of as many", "base": "the model trained on everything"}
SEED_SHIFT = 0.035  # inches right of the interval that would hide the points
RING: Mapping[str, Any] = {"marker": "o", "markerfacecolor": "none", "color": INK, "linestyle": "none"}


def of_worst_group(contrasts: pd.DataFrame) -> pd.DataFrame:
    """The rows that the figure shows: WGA against random removal; where no arm has that, against base models."""
    known = contrasts[(contrasts["measure"] == WORST) & contrasts["difference"].notna()]
    against_random = known[known["reference"] == REFERENCE_METHOD]
    return against_random if len(against_random) else known[known["reference"] == "base"]


def differences_figure(results: Results, contrasts: pd.DataFrame, chosen: Mapping[str, int]) -> Figure:
    """Mean paired difference in WGA (percentage points) per arm, with its seeds, intervals, and the random arm's range.

    `contrasts` is the contrast table, with a row at least in `of_worst_group`, `chosen` the number of each method that
    val chose.
    """
    with house_style():
        shown = of_worst_group(contrasts)
        drawing = _Drawing.of(results, shown, chosen)
        page = Page(f"Difference in worst-group accuracy to {ZERO_LABELS[drawing.reference]}", results)
        drawing.add_legend(page)
        ((axes,),) = page.panels([1], HEIGHT_INCHES, left=LEFT_INCHES, above=0.4)
        drawing.draw(axes)
        num_train = results.fits["num_train"].add(results.fits["num_removed"]).max()
        share_axis(axes, int(num_train))
        page.label_axes([[axes]], across="train examples removed", up="percentage points")
        return page.finish(drawing.caption())


@dataclass(frozen=True)
class _Drawing:
    """What of the results is in the figure."""

    contrasts: pd.DataFrame
    reference: str
    envelope: pd.DataFrame
    """By num_removed, the `low` and `high` of the reference's seeds less their mean, in points."""
    heuristics: Mapping[str, tuple[int, ...]]
    """The numbers that a method's rule came to."""
    chosen: Mapping[str, int]
    styles: Mapping[str, MethodStyle]
    without_reference: tuple[str, ...] = ()
    """Arms that have trials and nothing to be compared with here."""

    @classmethod
    def of(cls, results: Results, contrasts: pd.DataFrame, chosen: Mapping[str, int]) -> "_Drawing":
        reference = str(contrasts["reference"].iloc[0])
        trials = each_model_once(results.trials[results.trials["group"] == WORST])
        by_rule = trials[trials["method"].str.endswith(RULE_SUFFIX)]
        heuristics = {str(m): tuple(sorted(set(of["num_removed"].tolist()))) for m, of in by_rule.groupby("method")}
        spread = trials[trials["method"] == (BASE if reference == "base" else reference)]
        values = 100 * (spread["accuracy"] - spread.groupby("num_removed")["accuracy"].transform("mean"))
        envelope = values.groupby(spread["num_removed"]).agg(["min", "max", "count"])
        envelope = envelope[envelope["count"] > 1].rename(columns={"min": "low", "max": "high"})
        methods = method_order([*contrasts["method"].unique(), *heuristics])
        left_out = set(trials["method"]) - {*contrasts["method"], *heuristics, BASE, REFERENCE_METHOD}
        return cls(contrasts, reference, envelope, heuristics, chosen, method_styles(methods), tuple(sorted(left_out)))

    def draw(self, axes: Axes) -> None:
        rule(axes)
        self._draw_axes(axes)
        axes.axhline(0, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
        limits = self.envelope.reset_index()
        if self.reference == "base" and len(limits):
            axes.axhspan(limits["low"].iloc[0], limits["high"].iloc[0], color=GREY, alpha=0.18, linewidth=0)
        elif len(limits):
            axes.fill_between(limits["num_removed"], limits["low"], limits["high"], color=GREY, alpha=0.18, linewidth=0)
        compared = [method for method in self.styles if method in set(self.contrasts["method"])]
        room = closest_inches(axes, self.contrasts["num_removed"].tolist())
        dodge = min(DODGE_INCHES, DODGED_SHARE * room / len(compared))
        for position, method in enumerate(compared):
            rows = self.contrasts[self.contrasts["method"] == method].sort_values("num_removed")
            self._draw_method(axes, method, rows, dodge * (position - (len(compared) - 1) / 2))
        for method, numbers in self.heuristics.items():
            for number in numbers:
                axes.axvline(number, color=self.styles[method].colour, linewidth=0.9, linestyle=":", zorder=1)
                marks = self.styles[method].of_marker | {"linestyle": "none", "markersize": 5}
                axes.plot([number], [0.0], transform=axes.get_xaxis_transform(), clip_on=False, **marks, zorder=6)

    def _draw_axes(self, axes: Axes) -> None:
        bounds = 100 * self.contrasts[["difference", "t_low", "t_high"]].to_numpy(dtype=float).ravel()
        seeds = [100 * value for row in self.contrasts.itertuples() for value in seed_values(row.differences)]
        spread = self.envelope[["low", "high"]].to_numpy(dtype=float).ravel()
        value_axes([axes], np.concatenate([bounds, seeds, spread, [0.0]]), (-100.0, 100.0), is_percent=False, sign="+")
        by_rule = {number for numbers in self.heuristics.values() for number in numbers}
        number_axis(axes, set(self.contrasts["num_removed"].tolist()), by_rule)

    def _draw_method(self, axes: Axes, method: str, rows: pd.DataFrame, shift: float) -> None:
        style = self.styles[method]
        inches = axes.figure.dpi_scale_trans
        where: dict[str, Any] = {"transform": axes.transData + ScaledTranslation(shift, 0, inches)}
        beside: dict[str, Any] = {"transform": axes.transData + ScaledTranslation(shift + SEED_SHIFT, 0, inches)}
        for row in rows.itertuples():
            seeds = [100 * value for value in seed_values(row.differences)]
            axes.plot(np.full(len(seeds), row.num_removed), seeds, ".", color=style.colour, markersize=3.5, **beside)
        numbers = rows["num_removed"].to_numpy()
        axes.vlines(numbers, 100 * rows["t_low"], 100 * rows["t_high"], color=style.colour, linewidth=1.1, **where)
        marks = style.of_marker | {"linestyle": style.dashes, "linewidth": 1.4, "markersize": 5}
        axes.plot(numbers, 100 * rows["difference"], **marks, zorder=4, **where)
        ringed = rows[rows["num_removed"] == self.chosen.get(method)] if len(rows) > 1 else rows.iloc[:0]
        axes.plot(ringed["num_removed"], 100 * ringed["difference"], markersize=11, **RING, zorder=5, **where)

    def add_legend(self, page: Page) -> None:
        handles: list[Artist] = []
        labels: list[str] = []
        for method, style in self.styles.items():
            handles.append(line_handle(linestyle=style.dashes, markersize=5, **style.of_marker))
            numbers = ", ".join(f"{number:,}" for number in self.heuristics.get(method, ()))
            labels.append(legible(method) + (f": removes {numbers}" if numbers else ""))
        handles.append(line_handle(color=GREY, linestyle=(0, (4, 2)), linewidth=1.2))
        labels.append(ZERO_LABELS[self.reference])
        if self.chosen:
            handles.append(line_handle(markersize=8, **RING))
            labels.append("number chosen on val")
        page.legend(handles, labels)

    def caption(self) -> list[str]:
        pairs = self.contrasts["num_pairs"]
        num_pairs = counted(pairs.max(), "pair")
        num_pairs = num_pairs if pairs.min() == pairs.max() else f"{pairs.min()} to {num_pairs}"
        sentences = [
            "Each small point is one seed: the arm's worst-group accuracy less that of "
            f"{ZERO_LABELS[self.reference]} under the same seed ({num_pairs}); large markers are their means."
        ]
        if self.contrasts["t_low"].notna().any():
            sentences.append(f"Bars are {CONFIDENCE:.0%} Student t intervals of the mean difference over seeds.")
        if pairs.min() < MIN_VALUES:
            sentences.append(f"Fewer than {MIN_VALUES} pairs have no interval.")
        if len(self.envelope):
            sentences.append(
                f"The grey band is the range, lowest to highest seed, of {ZERO_LABELS[self.reference]} about its own "
                "mean: no interval."
            )
        if self.heuristics:
            sentences.append("Dotted vertical lines: the number that a method's own rule removes.")
        if self.without_reference:
            names = ", ".join(map(legible, self.without_reference))
            sentences.append(f"Not here, for there is no {ZERO_LABELS[self.reference]}: {names}.")
        return [" ".join(sentences)]


def seed_values(values: Any) -> list[float]:
    """Numbers as a table holds them, blanks between them; of none, none."""
    return [float(value) for value in values.split()] if isinstance(values, str) else []
