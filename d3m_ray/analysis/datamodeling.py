"""Table of the linear datamodeling scores: how well each method's scores foretell retraining."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from d3m_ray.analysis.results import Results

MEAN = "mean"  # the target whose row is the mean over all targets of its kind


def lds_table(results: Results) -> pd.DataFrame:
    """One row per method and target: the mean over val examples, the mean over groups, and each group.

    Of each method those over the most subsets count. Columns: `method`, `kind` (query or group), `target`, `lds`,
    `lds_low`, `lds_high` (95% bootstrap over the subsets), `num_subsets`, `scoring_seconds` (of the scores of every val
    example). Empty where the store has no LDS of the experiment.
    """
    rows = results.lds
    most = rows["num_subsets"] == rows.groupby("method")["num_subsets"].transform("max")
    shown = rows[most & ((rows["target"] == MEAN) | (rows["kind"] == "group"))]
    columns = ["method", "kind", "target", "lds", "lds_low", "lds_high", "num_subsets", "scoring_seconds"]
    return shown[columns].reset_index(drop=True)


def render_lds(table: pd.DataFrame, title: str | None = None) -> Table:
    """The means over val examples and over groups, best method first, for the terminal."""
    rendered = Table(
        title=title,
        caption="Spearman correlation of foretold and retrained margins, mean and 95% bootstrap interval over subsets; "
        "seconds of scoring",
        box=SIMPLE_HEAD,
    )
    for column in ("method", "LDS per example", "LDS per group", "subsets", "seconds"):
        rendered.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    means = table[table["target"] == MEAN]
    per_group = {row["method"]: row for _, row in means[means["kind"] == "group"].iterrows()}
    per_query = means[means["kind"] == "query"].set_index("method").sort_values("lds", ascending=False)
    for method, row in per_query.iterrows():
        cells = [_with_interval(row), _with_interval(per_group[method])]
        rendered.add_row(str(method), *cells, f"{row['num_subsets']:,}", f"{row['scoring_seconds']:.1f}")
    return rendered


def _with_interval(row: pd.Series) -> Text:
    if pd.isna(row["lds"]):
        return Text("-", style="dim")
    text = Text(f"{row['lds']:.2f}")
    if pd.isna(row["lds_low"]):  # too few subsets
        return text
    return text.append(f" [{row['lds_low']:.2f}, {row['lds_high']:.2f}]", style="dim")
