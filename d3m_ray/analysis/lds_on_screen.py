"""The table of linear datamodeling scores on the terminal."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from d3m_ray.analysis.lds import CEILING, KINDS, MEAN, STUDY, as_percent, leading_kind

SCORE = ("lds", "lds_low", "lds_high")


def render_lds(table: pd.DataFrame, title: str | None = None) -> Table:
    """The means of `lds_table`: of each study its methods, best first, and the ceiling of all of them."""
    rendered = Table(
        title=title,
        caption="Spearman correlation of predicted and retrained outcomes, mean and 95% bootstrap interval over "
        "subsets; the ceiling is what a perfect method would reach, or with base seeds one that does not read them",
        box=SIMPLE_HEAD,
    )
    for column in ("kept", "method", *(f"LDS {words}" for words in KINDS.values()), "fits"):
        is_words = column in ("kept", "method")
        rendered.add_column(column, justify="left" if is_words else "right", no_wrap=column == "method")
    means = table[table["target"] == MEAN]
    for (seeds, share), rows in means.groupby(STUDY, sort=False):
        kept = as_percent(share) + (" base seeds" if seeds == "base" else "")
        by_method = {str(method): of.set_index("kind") for method, of in rows.groupby("method")}
        for method, of in sorted(by_method.items(), key=lambda item: _rank(item[1], leading_kind(table))):
            first = of.iloc[0]
            fits = f"{first['num_subsets']:,} x {first['fits_per_subset']}"
            cells = [_with_interval(of, kind, SCORE) for kind in KINDS]
            rendered.add_row(kept, method, *cells, fits)
        if rows["fit_correlation"].notna().any():
            of = rows.sort_values("num_subsets").drop_duplicates("kind", keep="last").set_index("kind")
            rendered.add_row(kept, Text("ceiling", style="italic"), *(_with_interval(of, k, CEILING) for k in KINDS))
    return rendered


def _rank(of_method: pd.DataFrame, kind: str) -> float:
    """Lower is better."""
    value = of_method["lds"].astype(float).get(kind, float("nan"))
    return float("inf") if pd.isna(value) else -float(value)


def _with_interval(by_kind: pd.DataFrame, kind: str, columns: tuple[str, str, str]) -> Text:
    if kind not in by_kind.index or pd.isna(by_kind[columns[0]][kind]):
        return Text("-", style="dim")
    value, low, high = (float(by_kind[column][kind]) for column in columns)
    text = Text(f"{value:.2f}")
    if pd.isna(low):  # too few subsets
        return text
    return text.append(f" [{low:.2f}, {high:.2f}]", style="dim")
