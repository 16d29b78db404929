"""Tables of the trials: worst-group accuracy by method and number removed."""

from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from d3m_ray.analysis.results import newest_trials
from d3m_ray.analysis.statistics import MIN_VALUES, Interval, bootstrap_interval, paired_differences, t_interval
from d3m_ray.metrics import CELL_SEPARATOR, SUMMARY_GROUPS
from d3m_ray.store import Store, StoreError

REFERENCE_METHOD = "random"
ACCURACIES = {"worst": "wga", "worst_cell": "worst_cell_accuracy", "all": "accuracy"}  # group -> column
DIFFERENCE = "wga_difference"

Arm = tuple[Hashable, ...]  # (method, num_removed), as pandas types the keys of its groups


def read_trials(store: Store, experiment: str, split: str = "test") -> pd.DataFrame:
    """The rows of an experiment's trials in one split, sorted by method, num_removed, seed.

    Where a (method, num_removed, seed) was run more than once, the newest counts. Raises StoreError where the
    experiment has no trial.
    """
    trials = store.read_all("trials", filters=[("experiment", "==", experiment), ("split", "==", split)])
    if trials.empty:
        known = sorted(store.read_all("trials", columns=["experiment"])["experiment"].unique())
        raise StoreError(f"{store} holds no {split} trial of {experiment!r}; it has trials of {known}")
    return newest_trials(trials).sort_values(["method", "num_removed", "seed", "group"], ignore_index=True)


def identity_names(groups: Collection[str]) -> list[str]:
    """The identities among the groups of the trials table, sorted; neither their cells nor the summary rows."""
    cells = {group for group in groups if any(group.startswith(f"{other}{CELL_SEPARATOR}") for other in groups)}
    return sorted(set(groups) - cells - set(SUMMARY_GROUPS))


def summary_table(store: Store, experiment: str, split: str = "test") -> pd.DataFrame:
    """One row per method and num_removed, from the store's trials alone.

    Columns: `method`, `num_removed`, `num_seeds`; `wga` (mean over seeds of the worst identity's accuracy), `accuracy`
    (of all examples) and `worst_cell_accuracy`, each with `_low` and `_high`, the 95% bootstrap bounds; and
    `wga_difference` with its bounds and `_t_low` and `_t_high`, those of Student's t: the mean over `num_pairs` seeds
    of WGA minus that of random removal with the same num_removed and seed, NaN where there is none, or where both are
    one model. Below `MIN_VALUES` seeds bounds are NaN. `wga_values` and `wga_difference_values` are each seed's, in
    order, blanks between them.
    """
    trials = read_trials(store, experiment, split)
    accuracies = trials.pivot(index=["method", "num_removed", "seed"], columns="group", values="accuracy")
    arms = accuracies.groupby(level=["method", "num_removed"])
    by_arm: dict[Arm, pd.DataFrame] = {arm: rows.droplevel(["method", "num_removed"]) for arm, rows in arms}
    fits = trials.drop_duplicates(["method", "num_removed", "seed"]).groupby(["method", "num_removed"])
    fit_keys: dict[Arm, pd.Series] = {arm: rows.set_index("seed")["fit_key"] for arm, rows in fits}
    return pd.DataFrame([_summarise(arm, by_arm, fit_keys) for arm in by_arm])


def _summarise(arm: Arm, by_arm: Mapping[Arm, pd.DataFrame], fit_keys: Mapping[Arm, pd.Series]) -> dict[str, Any]:
    method, num_removed = arm
    row: dict[str, Any] = {"method": method, "num_removed": num_removed, "num_seeds": len(by_arm[arm])}
    for group, column in ACCURACIES.items():
        row |= _columns(column, bootstrap_interval(by_arm[arm][group]))
    reference = (REFERENCE_METHOD, num_removed)
    if reference not in by_arm or method == REFERENCE_METHOD:
        differences = pd.Series(dtype="float64")
    else:
        differences = paired_differences(by_arm[arm]["worst"], by_arm[reference]["worst"])
        seeds = differences.index
        differences = differences[fit_keys[arm].loc[seeds] != fit_keys[reference].loc[seeds]]
    row |= _columns(DIFFERENCE, bootstrap_interval(differences)) | {"num_pairs": len(differences)}
    by_student = t_interval(differences)
    row |= {f"{DIFFERENCE}_t_low": by_student.low, f"{DIFFERENCE}_t_high": by_student.high}
    values = {"wga": by_arm[arm]["worst"].sort_index(), DIFFERENCE: differences.sort_index()}
    return row | {f"{name}_values": " ".join(f"{value:.6g}" for value in of) or None for name, of in values.items()}


def _columns(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, the folder made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False)


def render_summary(summary: pd.DataFrame, title: str | None = None) -> Table:
    """The summary as a table for the terminal, in percent; each method's best mean WGA is bold.

    An interval stands beside its mean, or below it where the terminal is narrow; that of the difference is Student's.
    Where there are too few seeds for one, the value of each stands below the mean.
    """
    rendered = Table(
        title=title,
        caption="percent, mean over seeds and 95% interval over seeds: bootstrap, Student's t of the paired "
        f"differences; of fewer than {MIN_VALUES} seeds their values; -: no random removal of as many",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    for column in ("method", "removed", "seeds", "worst group", "worst cell", "all", "worst group\nvs random"):
        rendered.add_column(column, justify="left" if column == "method" else "right")
    for method, rows in summary.groupby("method", sort=False):
        for position, (index, row) in enumerate(rows.iterrows()):
            cells = [_percent(row, column, *_bounds(column)) for column in ACCURACIES.values()]
            if index == rows["wga"].idxmax():
                cells[0].stylize("bold")
            arm = [
                Text(str(method).replace("_", " ") if position == 0 else ""),  # a name is no markup
                Text(f"{row['num_removed']:,}"),
                Text(str(row["num_seeds"])),
            ]
            rendered.add_row(*arm, *cells, _percent(row, DIFFERENCE, *_bounds(f"{DIFFERENCE}_t"), sign="+"))
        rendered.add_section()
    return rendered


def _bounds(column: str) -> tuple[str, str]:
    return f"{column}_low", f"{column}_high"


def _percent(row: pd.Series, column: str, low_column: str, high_column: str, sign: str = "") -> Text:
    mean, low, high = (100 * row[name] for name in (column, low_column, high_column))
    if pd.isna(mean):
        return Text("-", style="dim")
    text = Text(f"{mean:{sign}.1f}")
    if not pd.isna(low):
        return text.append(f" [{low:{sign}.1f},{high:{sign}.1f}]", style="dim not bold")
    values = str(row.get(f"{column}_values", "")).split()
    shown = " ".join(f"{100 * float(value):{sign}.1f}" for value in values)
    return text.append(f"\n({shown})", style="dim not bold") if 1 < len(values) < MIN_VALUES else text
