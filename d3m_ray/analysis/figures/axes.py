"""Axes that say no more than there is: ticks that stand apart, none beyond what a quantity can be."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.scale import SymmetricalLogTransform
from matplotlib.ticker import MaxNLocator, NullLocator

from d3m_ray.analysis.figures.lettering import LABEL_POINTS, text_inches
from d3m_ray.analysis.figures.page import width_inches

TICK_GAP_INCHES = 0.06  # between two labels
LINEAR_DECADES = 0.4  # how many decades of a logarithmic axis lie between 0 and the smallest number
WIDE_RANGE = 20  # largest over smallest number removed above which the axis is logarithmic
PADDING = 0.06  # of the range of values, at both ends
DODGE_INCHES = 0.09  # between the markers of arms that remove nothing
STEPS = [1, 2, 2.5, 5, 10]

PERCENT_METRICS = ("accuracy", "fpr", "fnr")
UPPER_BOUNDS = {"accuracy": 1.0, "fpr": 1.0, "fnr": 1.0, "auc": 1.0, "macro_f1": 1.0}  # the loss has none


def number_axis(axes: Axes, numbers: Collection[int], others: Collection[int] = (), num_at_zero: int = 1) -> None:
    """The axis of how many are removed: each number a tick, and labels on as many as stand apart.

    `numbers` keep their labels before `others` do. `num_at_zero` markers find room side by side left of 0.
    """
    removals = sorted({*numbers, *others} - {0}) or [1]
    room = num_at_zero * DODGE_INCHES / width_inches(axes)  # as a share of the axis
    if removals[-1] > WIDE_RANGE * removals[0]:
        axes.set_xscale("symlog", linthresh=removals[0], linscale=LINEAR_DECADES)
        span = LINEAR_DECADES * 10 / 9 + np.log10(removals[-1] / removals[0])  # decades from 0 to the last number
        axes.set_xlim(-removals[0] * min(span * room * 2.5 / (1 - room), 1.0), removals[-1] * 10 ** (0.04 * span))
    else:
        axes.set_xlim(-removals[-1] * max(room, 0.03) * 1.1, removals[-1] * 1.05)
    axes.xaxis.set_minor_locator(NullLocator())
    ticks = sorted({0, *numbers, *others})
    first = [0, removals[-1], *sorted(numbers), *sorted(others)]  # 0 and the largest say how far the axis goes
    label_apart(axes, ticks, [f"{number:,}" for number in ticks], first)


def label_apart(axes: Axes, ticks: Sequence[float], labels: Sequence[str], first: Sequence[float]) -> None:
    """Ticks at all places, labels at those that do not touch one that was given before, in the order of `first`."""
    transform = axes.transScale + axes.transLimits
    places = {tick: float(transform.transform((tick, 0))[0]) * width_inches(axes) for tick in ticks}
    halves = {tick: text_inches(label) / 2 for tick, label in zip(ticks, labels, strict=True)}
    kept: list[float] = []
    for tick in dict.fromkeys(tick for tick in first if tick in places):
        if all(abs(places[tick] - places[k]) >= halves[tick] + halves[k] + TICK_GAP_INCHES for k in kept):
            kept.append(tick)
    axes.set_xticks(list(ticks), [label if tick in kept else "" for tick, label in zip(ticks, labels, strict=True)])


def share_axis(axes: Axes, num_train: int) -> None:
    """A second axis above the first: its numbers as shares of train."""
    top = axes.twiny()
    top.set_xscale(axes.get_xscale(), **_symlog_arguments(axes))
    top.set_xlim(axes.get_xlim())
    top.spines[["right"]].set_visible(False)
    top.tick_params(labelsize=LABEL_POINTS, length=3, width=0.7)
    top.xaxis.set_minor_locator(NullLocator())
    top.set_xlabel("share of train removed", fontsize=LABEL_POINTS + 0.5)
    ticks = [float(tick) for tick in axes.get_xticks()]
    labels = [f"{100 * tick / num_train:.3g}%" for tick in ticks]
    label_apart(top, ticks, labels, [0.0, ticks[-1], *ticks])


def _symlog_arguments(axes: Axes) -> dict[str, Any]:
    """What `set_xscale` needs to make another axis like this one."""
    scale = axes.xaxis.get_transform()
    return (
        {"linthresh": scale.linthresh, "linscale": LINEAR_DECADES} if isinstance(scale, SymmetricalLogTransform) else {}
    )


def value_axes(
    row: Sequence[Axes], values: np.ndarray, bounds: tuple[float, float], is_percent: bool, sign: str = ""
) -> None:
    """One vertical scale for a row of panels: all values are on it, ticks are within the bounds of the quantity."""
    low, high = padded(values, bounds)
    ticks = ticks_within(low, high, bounds)
    labels = [tick_label(tick, is_percent, sign) for tick in ticks]
    for position, axes in enumerate(row):
        axes.set_ylim(low, high)
        axes.set_yticks(ticks, labels if position == 0 else [""] * len(ticks))


def ticks_within(low: float, high: float, bounds: tuple[float, float] = (-np.inf, np.inf)) -> list[float]:
    """Round numbers between the limits of an axis and within the bounds of its quantity."""
    ticks = MaxNLocator(5, steps=STEPS).tick_values(low, high)
    return [float(tick) for tick in ticks if max(low, bounds[0]) <= tick <= min(high, bounds[1])]


def tick_label(tick: float, is_percent: bool = False, sign: str = "") -> str:
    """The number of a tick, without digits that mean nothing; 0 has no sign."""
    text = f"{100 * tick if is_percent else tick:{sign if round(tick, 12) else ''}.6g}".replace("-", "\N{MINUS SIGN}")
    return f"{text}%" if is_percent else text


def padded(values: np.ndarray, bounds: tuple[float, float]) -> tuple[float, float]:
    """Limits around the finite values with room for markers; at a bound of the quantity little room, else more."""
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    span = max(high - low, 0.02 * max(abs(low), abs(high)), 1e-9)
    room = PADDING * span
    return max(low - room, bounds[0] - room / 2), min(high + room, bounds[1] + room / 2)
