"""The forest plot: what each method changes in each group, at the number removed that val chose."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3m_ray.analysis.choice import REFERENCE_METHOD, WORST
from d3m_ray.analysis.corpus import trial_identities
from d3m_ray.analysis.figures.axes import padded, tick_label, ticks_within
from d3m_ray.analysis.figures.bands import mean_bands
from d3m_ray.analysis.figures.curves import BASE, each_model_once
from d3m_ray.analysis.figures.differences import ZERO_LABELS
from d3m_ray.analysis.figures.lettering import key_lines, legible, shortened, text_inches
from d3m_ray.analysis.figures.page import Page, head, line_handle, rule
from d3m_ray.analysis.figures.style import GREY, GRID, MethodStyle, house_style, method_order, method_styles
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.statistics import CONFIDENCE, MIN_VALUES

ROW_INCHES = 0.115  # of one method in one group
ROW_GAP = 1.2  # between groups, in such rows
SUMMARIES = {"all": "all examples", WORST: "worst group"}


def group_differences(results: Results, chosen: Mapping[str, int]) -> pd.DataFrame:
    """Paired differences in accuracy of each method, at its number in `chosen`, to random removal and to base models.

    One row per reference (`random`, `base`), method, num_removed, group (identities, `all` and `worst`) and seed:
    `difference`. Trials that are one fit with their reference are left out.
    """
    trials = each_model_once(results.trials)
    shown = [*SUMMARIES, *trial_identities(results)]
    trials = trials.loc[trials["group"].isin(shown), ["method", "num_removed", "seed", "group", "accuracy", "fit_key"]]
    of_chosen = [
        trials[(trials["method"] == method) & (trials["num_removed"] == number)]
        for method, number in chosen.items()
        if method != REFERENCE_METHOD
    ]
    arms = pd.concat([trials.iloc[:0], *of_chosen])
    at_random = trials[trials["method"] == REFERENCE_METHOD]
    base = trials[trials["method"] == BASE]
    pairs = {
        REFERENCE_METHOD: arms.merge(at_random, on=["num_removed", "seed", "group"], suffixes=("", "_of_reference")),
        "base": arms.merge(base, on=["seed", "group"], suffixes=("", "_of_reference")),
    }
    rows = pd.concat([frame.assign(reference=reference) for reference, frame in pairs.items()], ignore_index=True)
    rows = rows[rows["fit_key"] != rows["fit_key_of_reference"]]
    rows = rows.assign(difference=rows["accuracy"] - rows["accuracy_of_reference"])
    return rows[["reference", "method", "num_removed", "group", "seed", "difference"]].reset_index(drop=True)


def forest_figure(results: Results, differences: pd.DataFrame) -> Figure:
    """A row per group and method, a panel per reference; `differences` is that of `group_differences`, not empty."""
    with house_style():
        references = [name for name in ZERO_LABELS if name in set(differences["reference"])]
        identities = trial_identities(results)
        groups = [*SUMMARIES, *identities]
        styles = method_styles(method_order(differences["method"]))
        page = Page("Difference in accuracy by group, at the number removed that was chosen on val", results)
        numbers = differences.drop_duplicates("method").set_index("method")["num_removed"]
        removed = {method: f"{numbers[method]:,}" if numbers[method] else "nothing" for method in styles}
        labels = [f"{legible(method)}, {removed[method]} removed" for method in styles]
        page.legend([line_handle(linestyle="none", markersize=5, **s.of_marker) for s in styles.values()], labels)
        names = shortened(identities)
        titles = _row_titles(results, groups, names)
        left = max(map(text_inches, titles)) + 0.12
        height = ROW_INCHES * (len(styles) + ROW_GAP) * len(groups)
        (panels,) = page.panels([len(references)], height, left, above=0.3)
        bands = mean_bands(differences, ["reference", "method", "group"], "difference")
        values = 100 * np.concatenate([bands["low"], bands["high"], differences["difference"], [0.0]])
        for position, (axes, reference) in enumerate(zip(panels, references, strict=True)):
            of_panel = [frame[frame["reference"] == reference] for frame in (bands, differences)]
            _draw_panel(axes, of_panel[0], of_panel[1], groups, styles)
            _scale(axes, values, titles if position == 0 else [""] * len(groups))
            head(axes, f"less {ZERO_LABELS[reference]}")
        page.label_axes([panels], across="percentage points of accuracy")
        return page.finish([_caption()], key_lines(names))


def _row_titles(results: Results, groups: list[str], names: Mapping[str, str]) -> list[str]:
    sizes = results.trials.drop_duplicates("group").set_index("group")["num_examples"]
    return [
        SUMMARIES[group] if group == WORST else f"{SUMMARIES.get(group) or names[group]} (n = {sizes[group]:,})"
        for group in groups
    ]


def _draw_panel(
    axes: Axes, bands: pd.DataFrame, seeds: pd.DataFrame, groups: list[str], styles: Mapping[str, MethodStyle]
) -> None:
    rule(axes, "x")
    axes.axvline(0, color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
    step = 1 / (len(styles) + ROW_GAP)
    for position, (method, style) in enumerate(styles.items()):
        shift = (position - (len(styles) - 1) / 2) * step
        rows, points = bands[bands["method"] == method], seeds[seeds["method"] == method]
        places, of_points = (np.array([groups.index(name) for name in of["group"]]) + shift for of in (rows, points))
        axes.plot(100 * points["difference"], of_points, ".", color=style.colour, markersize=2, alpha=0.5)
        axes.hlines(places, 100 * rows["low"], 100 * rows["high"], color=style.colour, linewidth=1.1, zorder=3)
        axes.plot(100 * rows["mean"], places, **(style.of_marker | {"linestyle": "none", "markersize": 4}), zorder=4)
    for place in range(1, len(groups)):
        axes.axhline(place - 0.5, color=GRID, linewidth=0.6, zorder=0)
    axes.axhline(len(SUMMARIES) - 0.5, color=GREY, linewidth=0.6, zorder=0)


def _scale(axes: Axes, values: np.ndarray, titles: list[str]) -> None:
    low, high = padded(values, (-100.0, 100.0))
    axes.set_xlim(low, high)
    ticks = ticks_within(low, high)
    axes.set_xticks(ticks, [tick_label(tick, sign="+") for tick in ticks])
    axes.set_yticks(range(len(titles)), titles)
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def _caption() -> str:
    return (
        f"Markers are mean paired differences over seeds, small points the seeds; bars are {CONFIDENCE:.0%} Student t "
        f"intervals over seeds, from {MIN_VALUES} pairs on. They know nothing of how few test examples a group has: of "
        "n examples, one is 100/n points. The panels share one scale."
    )
