"""The table at the end of a sweep: worst-group accuracy by method and number removed."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from d3m_ray.analysis.choice import BASE, WORST, arms_of, base_of, chosen_numbers
from d3m_ray.analysis.contrasts import REFERENCES, Row, contrast_table
from d3m_ray.analysis.power import SIGNIFICANCE
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import MIN_VALUES, Interval, bootstrap_interval

ACCURACIES = {"worst": "wga", "worst_cell": "worst_cell_accuracy", "all": "accuracy"}  # group -> column
DIFFERENCE = "wga_difference"
HEADS = ("method", "removed", "seeds", "worst group", "worst cell", "all", "worst group\ndifference")
CAPTION = (
    "percent, mean over seeds and 95% interval over seeds: bootstrap, Student's t of the paired differences; of fewer "
    f"than {MIN_VALUES} seeds their values; difference: to random removal of as many, or where marked base to the "
    "model of which nothing is removed; bold: the number chosen on val; *: p below 0.05, adjusted for all arms with "
    "that reference (Holm)"
)
_UNBOUND = 10_000  # columns: wider than any table


@once
def summary_table(results: Results) -> pd.DataFrame:
    """One row for the base models, whose method is `nothing removed`, and one per method and num_removed, on test.

    Columns: `method`, `num_removed`, `num_seeds`; `wga` (mean over seeds of the worst identity's accuracy), `accuracy`
    (of all examples) and `worst_cell_accuracy`, each with `_low` and `_high`, the 95% bootstrap bounds; and
    `wga_difference` with its bounds and `_t_low` and `_t_high`, those of Student's t, and `_boot_low` and `_boot_high`,
    which cover the finite test set too: the mean over `num_pairs` seeds of WGA minus that of the
    `wga_difference_reference` of the same seed, `random` (removal of as many) or, where no seed has that, `base` (the
    model trained on everything); NaN and None where there is neither, or where both are one model.
    `wga_difference_p_holm` is its p value, adjusted for all arms with that reference (`contrast_table`). Below
    `MIN_VALUES` seeds bounds and p values are NaN. `wga_values` and `wga_difference_values` are each seed's, in order,
    blanks between them. `is_chosen` marks the number removed of each method that val would choose; test has no say.
    Empty where the experiment has no test trial.
    """
    trials = results.trials
    if trials.empty:
        return pd.DataFrame()
    contrasts = contrast_table(results)
    compared = contrasts[contrasts["measure"] == WORST].set_index(["method", "num_removed", "reference"])
    by_contrast: dict[Hashable, Row] = dict(compared.to_dict("index"))
    chosen = chosen_numbers(results)
    base = base_of(trials)
    rows = [_summarise(BASE, 0, base, {}, False)] if len(base) else []
    for (method, number), of_arm in arms_of(trials).groupby(["method", "num_removed"]):
        name, num_removed = str(method), int(str(number))
        contrast = _first_contrast(by_contrast, name, num_removed)
        rows.append(_summarise(name, num_removed, of_arm, contrast, chosen.get(name) == num_removed))
    return pd.DataFrame(rows)


def _first_contrast(by_contrast: dict[Hashable, Row], method: str, num_removed: int) -> Row:
    """An arm's contrast with the first of `REFERENCES` that shares a seed with it."""
    for reference in REFERENCES:
        contrast = by_contrast.get((method, num_removed, reference), {})
        if contrast.get("num_pairs", 0) > 0:
            return {**contrast, "reference": reference}
    return {}


def _summarise(method: str, num_removed: int, trials: pd.DataFrame, contrast: Row, is_chosen: bool) -> dict[str, Any]:
    accuracies = trials.pivot(index="seed", columns="group", values="accuracy").sort_index()
    row: dict[str, Any] = {"method": method, "num_removed": num_removed, "num_seeds": len(accuracies)}
    for group, column in ACCURACIES.items():
        row |= _columns(column, bootstrap_interval(accuracies[group]))
    differences = str(contrast.get("differences", ""))
    row |= _columns(DIFFERENCE, bootstrap_interval([float(value) for value in differences.split()]))
    row[DIFFERENCE] = contrast.get("difference", float("nan"))  # the values are rounded
    row["num_pairs"] = contrast.get("num_pairs", 0)
    row[f"{DIFFERENCE}_reference"] = contrast.get("reference")
    for name in ("t_low", "t_high", "boot_low", "boot_high", "p_holm"):
        row[f"{DIFFERENCE}_{name}"] = contrast.get(name, float("nan"))
    values = " ".join(f"{value:.6g}" for value in accuracies[WORST])
    return row | {"wga_values": values, f"{DIFFERENCE}_values": differences or None, "is_chosen": is_chosen}


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


@dataclass(frozen=True)
class _Layout:
    """What stands between a mean and its interval, an interval's bounds, the seeds' values, and the words of a head."""

    before: str
    within: str
    values: str
    head: str


_LAYOUTS = (  # ever narrower
    _Layout(" ", ",", " ", " "),
    _Layout("\n", ",", " ", " "),
    _Layout("\n", ",", " ", "\n"),
    _Layout("\n", ",\n", "\n", "\n"),
)


@dataclass(frozen=True, eq=False)
class _Fitting:
    """The first of these tables that the terminal has room for, else the last."""

    tables: Sequence[Table]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbound = options.update(width=_UNBOUND)
        fitting = (one for one in self.tables if console.measure(one, options=unbound).maximum <= options.max_width)
        yield next(fitting, self.tables[-1])


def render_summary(summary: pd.DataFrame, title: str | None = None) -> RenderableType:
    """The summary as a table for the terminal, in percent; of each method's numbers, the one chosen on val is bold.

    An interval stands beside its mean, or below it where the terminal is narrow, its bounds below each other where it
    is narrower yet; that of the difference is Student's. Where there are too few seeds for one, the value of each
    stands below the mean.
    """
    return _Fitting([_render(summary, title, layout) for layout in _LAYOUTS])


def _render(summary: pd.DataFrame, title: str | None, layout: _Layout) -> Table:
    rendered = Table(title=title, caption=CAPTION, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for column in HEADS:
        head = column.replace(" ", layout.head)
        if column == "method":
            rendered.add_column(head, overflow="fold")
        else:
            rendered.add_column(head, justify="right", no_wrap=True)
    for method, rows in summary.groupby("method", sort=False):
        for position, row in enumerate(rows.to_dict("records")):
            cells = [_percent(row, column, layout) for column in ACCURACIES.values()]
            if row["is_chosen"]:
                cells[0].stylize("bold")
            arm = [
                Text(str(method) if position == 0 else ""),  # a name is no markup
                Text(f"{row['num_removed']:,}"),
                Text(str(row["num_seeds"])),
            ]
            rendered.add_row(*arm, *cells, _difference(row, layout))
        rendered.add_section()
    return rendered


def _difference(row: Row, layout: _Layout) -> Text:
    mark = "*" if row[f"{DIFFERENCE}_p_holm"] <= SIGNIFICANCE else ""
    if row[f"{DIFFERENCE}_reference"] == "base":
        mark += " base"
    return _percent(row, DIFFERENCE, layout, bounds=f"{DIFFERENCE}_t", sign="+", mark=mark)


def _percent(row: Row, column: str, layout: _Layout, bounds: str = "", sign: str = "", mark: str = "") -> Text:
    bounds = bounds or column
    mean, low, high = (100 * row[name] for name in (column, f"{bounds}_low", f"{bounds}_high"))
    if pd.isna(mean):
        return Text("-", style="dim")
    text = Text(f"{_number(mean, sign)}{mark}")
    if not pd.isna(low):
        interval = f"{layout.before}[{_number(low, sign)}{layout.within}{_number(high, sign)}]"
        return text.append(interval, style="dim not bold")
    values = str(row.get(f"{column}_values", "")).split()
    shown = layout.values.join(_number(100 * float(value), sign) for value in values)
    return text.append(f"\n{shown}", style="dim not bold") if 1 < len(values) < MIN_VALUES else text


def _number(percent: float, sign: str) -> str:
    """With one decimal, but for a whole hundred, which would make the table wider than 80 columns."""
    return f"{percent:{sign}.1f}".replace("100.0", "100")
