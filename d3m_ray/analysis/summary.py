"""The table at the end of a sweep: worst-group accuracy by method and number removed."""

from collections.abc import Hashable
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from d3m_ray.analysis.choice import BASE, REFERENCE_METHOD, WORST, arms_of, base_of, chosen_numbers
from d3m_ray.analysis.contrasts import Row, contrast_table
from d3m_ray.analysis.power import SIGNIFICANCE
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import MIN_VALUES, Interval, bootstrap_interval
from d3m_ray.store import StoreError

ACCURACIES = {"worst": "wga", "worst_cell": "worst_cell_accuracy", "all": "accuracy"}  # group -> column
DIFFERENCE = "wga_difference"


@once
def summary_table(results: Results) -> pd.DataFrame:
    """One row for the base models, whose method is `nothing removed`, and one per method and num_removed, on test.

    Columns: `method`, `num_removed`, `num_seeds`; `wga` (mean over seeds of the worst identity's accuracy), `accuracy`
    (of all examples) and `worst_cell_accuracy`, each with `_low` and `_high`, the 95% bootstrap bounds; and
    `wga_difference` with its bounds and `_t_low` and `_t_high`, those of Student's t, and `_boot_low` and `_boot_high`,
    which cover the finite test set too: the mean over `num_pairs` seeds of WGA minus that of random removal with the
    same num_removed and seed, or of the base model where an arm removes nothing; NaN where there is none, or where both
    are one model. `wga_difference_p_holm` is its p value, adjusted for all rows that have one (`contrast_table`). Below
    `MIN_VALUES` seeds bounds and p values are NaN. `wga_values` and `wga_difference_values` are each seed's, in order,
    blanks between them. `is_chosen` marks the number removed of each method that val would choose; test has no say.
    Raises StoreError where the experiment has no trial.
    """
    trials = results.trials
    if trials.empty:
        raise StoreError(f"{results.store} holds no test trial of {results.name!r}")
    contrasts = contrast_table(results)
    compared = contrasts[contrasts["measure"] == WORST].set_index(["method", "num_removed", "reference"])
    by_contrast: dict[Hashable, Row] = dict(compared.to_dict("index"))
    chosen = chosen_numbers(results)
    base = base_of(trials)
    rows = [_summarise(BASE, 0, base, {}, False)] if len(base) else []
    for (method, number), of_arm in arms_of(trials).groupby(["method", "num_removed"]):
        name, num_removed = str(method), int(str(number))
        reference = REFERENCE_METHOD if num_removed > 0 else "base"
        contrast = by_contrast.get((name, num_removed, reference), {})
        rows.append(_summarise(name, num_removed, of_arm, contrast, chosen.get(name) == num_removed))
    return pd.DataFrame(rows)


def _summarise(method: str, num_removed: int, trials: pd.DataFrame, contrast: Row, is_chosen: bool) -> dict[str, Any]:
    accuracies = trials.pivot(index="seed", columns="group", values="accuracy").sort_index()
    row: dict[str, Any] = {"method": method, "num_removed": num_removed, "num_seeds": len(accuracies)}
    for group, column in ACCURACIES.items():
        row |= _columns(column, bootstrap_interval(accuracies[group]))
    differences = str(contrast.get("differences", ""))
    row |= _columns(DIFFERENCE, bootstrap_interval([float(value) for value in differences.split()]))
    row["num_pairs"] = contrast.get("num_pairs", 0)
    for name in ("t_low", "t_high", "boot_low", "boot_high", "p_holm"):
        row[f"{DIFFERENCE}_{name}"] = contrast.get(name, float("nan"))
    values = " ".join(f"{value:.6g}" for value in accuracies[WORST])
    return row | {"wga_values": values, f"{DIFFERENCE}_values": differences or None, "is_chosen": is_chosen}


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def render_summary(summary: pd.DataFrame, title: str | None = None) -> Table:
    """The summary as a table for the terminal, in percent; of each method's numbers, the one chosen on val is bold.

    An interval stands beside its mean, or below it where the terminal is narrow; that of the difference is Student's.
    Where there are too few seeds for one, the value of each stands below the mean.
    """
    rendered = Table(
        title=title,
        caption="percent, mean over seeds and 95% interval over seeds: bootstrap, Student's t of the paired "
        f"differences; of fewer than {MIN_VALUES} seeds their values; -: no random removal of as many; bold: the "
        "number chosen on val; *: p below 0.05, adjusted for all rows (Holm)",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    for column in ("method", "removed", "seeds", "worst group", "worst cell", "all", "worst group\nvs random"):
        is_name = column == "method"  # a name has no blanks to be wrapped at; numbers have
        rendered.add_column(column, justify="left" if is_name else "right", no_wrap=is_name)
    for method, rows in summary.groupby("method", sort=False):
        for position, row in enumerate(rows.to_dict("records")):
            cells = [_percent(row, column, *_bounds(column)) for column in ACCURACIES.values()]
            if row["is_chosen"]:
                cells[0].stylize("bold")
            arm = [
                Text(str(method) if position == 0 else ""),  # a name is no markup
                Text(f"{row['num_removed']:,}"),
                Text(str(row["num_seeds"])),
            ]
            mark = "*" if row[f"{DIFFERENCE}_p_holm"] <= SIGNIFICANCE else ""
            rendered.add_row(*arm, *cells, _percent(row, DIFFERENCE, *_bounds(f"{DIFFERENCE}_t"), sign="+", mark=mark))
        rendered.add_section()
    return rendered


def _bounds(column: str) -> tuple[str, str]:
    return f"{column}_low", f"{column}_high"


def _percent(row: Row, column: str, low_column: str, high_column: str, sign: str = "", mark: str = "") -> Text:
    mean, low, high = (100 * row[name] for name in (column, low_column, high_column))
    if pd.isna(mean):
        return Text("-", style="dim")
    text = Text(f"{mean:{sign}.1f}{mark}")
    if not pd.isna(low):
        return text.append(f" [{low:{sign}.1f},{high:{sign}.1f}]", style="dim not bold")
    values = str(row.get(f"{column}_values", "")).split()
    shown = " ".join(f"{100 * float(value):{sign}.1f}" for value in values)
    return text.append(f"\n({shown})", style="dim not bold") if 1 < len(values) < MIN_VALUES else text
