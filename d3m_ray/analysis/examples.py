"""The train examples that hurt or help most by a method's alignment, with their texts."""

import unicodedata

import numpy as np
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from d3m_ray.analysis.corpus import named, train_examples
from d3m_ray.analysis.results import Results

NUM_EXAMPLES = 20  # unless told otherwise: about a screen of them
SCORE = "score_"
COLUMNS = ["rank", "example_id", "group", "label_name", "alignment", "smallest_num_removed", "text"]
MAX_NAME, MAX_TEXT = 40, 500  # characters that the terminal shows of a name and of a text
CUT = "…"
# Embeddings, overrides and isolates: they would reorder the rest of a line.
_REORDERING = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}


def examples_table(
    results: Results,
    method: str,
    num_examples: int = NUM_EXAMPLES,
    best: bool = False,
    group: str | None = None,
    label: str | None = None,
) -> pd.DataFrame:
    """The train examples of lowest alignment, or of highest: one row each, the lowest or highest first.

    `method` names an alignment, `group` and `label` (its name) one cell or part of train to take them from. Columns:
    `rank` (1 is the lowest alignment of all of train, of equals the first in train order, as in removal), `example_id`,
    `group`, `label_name`, `alignment`, `smallest_num_removed` (the smallest number that a trial of the method removed
    with this example among them, missing where none did), `text` (missing where it is not stored), and `score_` and a
    query set: the effect on its target, positive where it raises it. Empty where the store lacks the alignment.
    """
    rows = results.alignments.get(method)
    if rows is None:
        return pd.DataFrame(columns=COLUMNS)
    ranks = rows["alignment"].rank(method="first").astype("int64")
    rows = rows.assign(rank=ranks, label_name=named(results, rows["label"]))
    is_wanted = np.ones(len(rows), dtype=bool)
    for column, wanted in (("group", group), ("label_name", label)):
        is_wanted &= True if wanted is None else (rows[column] == wanted).to_numpy()
    by = rows["alignment"] * (-1 if best else 1)
    chosen = rows.loc[by[is_wanted].sort_values(kind="stable").index[:num_examples]]
    texts = train_examples(results).set_index("example_id")["text"]
    chosen = chosen.join(texts, on="example_id").join(_smallest_removals(results, method), on="example_id")
    return chosen[COLUMNS].join(_scores(results, method), on="example_id").reset_index(drop=True)


def _smallest_removals(results: Results, method: str) -> pd.Series:
    """By example id, the smallest number that a trial of the method removed with the example among them."""
    smallest = results.removals_of(method).groupby("example_id")["num_removed"].min()
    return smallest.astype("Int64").rename("smallest_num_removed")


def _scores(results: Results, method: str) -> pd.DataFrame:
    """By example id, a column for each query set; none where the store lacks the scores."""
    scores = results.scores.get(method)
    if scores is None:
        return pd.DataFrame(index=pd.Index([], dtype="str", name="example_id"))
    columns = [f"{SCORE}{name}" for name in scores.query_sets]
    return pd.DataFrame(scores.values, index=pd.Index(scores.example_ids, name="example_id"), columns=columns)


def scores_of(table: pd.DataFrame) -> list[str]:
    """The columns of `examples_table` that hold scores."""
    return [name for name in map(str, table) if name.startswith(SCORE)]


def render_examples(table: pd.DataFrame, title: str) -> Table:
    """The rows of `examples_table` for the terminal: each text on one line, in part where it is long, above its scores.

    Nothing in a name or a text is taken for markup, or reaches the terminal as a control character.
    """
    rendered = Table(
        title=Text(printable(title)),
        caption="alignment: low hurts the groups that the model fails on. removed at: the smallest number that a trial "
        "of the method removed with the example among them. below a text: its effect on each group's target, "
        "what --target of the experiment names.",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for column in ("rank", "alignment", "removed\nat"):
        rendered.add_column(column, justify="right", no_wrap=True)
    for column, ratio in (("group", 1), ("label", 1), ("text", 6)):
        rendered.add_column(column, overflow="fold", ratio=ratio)
    score_columns = scores_of(table)
    for row in table.to_dict("records"):
        scores = ", ".join(f"{_short(name.removeprefix(SCORE))} {row[name]:+.3g}" for name in score_columns)
        text = Text("(no text)", style="dim") if pd.isna(row["text"]) else Text(_short(row["text"], MAX_TEXT))
        rendered.add_row(
            f"{row['rank']:,}",
            f"{row['alignment']:+.4g}",
            "-" if pd.isna(row["smallest_num_removed"]) else f"{row['smallest_num_removed']:,}",
            Text(_short(row["group"])),
            Text(_short(row["label_name"])),
            text.append(f"\n{scores}", style="dim") if scores else text,
        )
    return rendered


def printable(text: str) -> str:
    """The text on one line, each run of white space a blank, what could steer a terminal spelled out."""
    line = " ".join(text.split())
    steers = (unicodedata.category(letter) == "Cc" or letter in _REORDERING for letter in line)
    return "".join(
        letter.encode("unicode_escape").decode() if is_control else letter
        for letter, is_control in zip(line, steers, strict=True)
    )


def _short(text: str, longest: int = MAX_NAME) -> str:
    shown = printable(text)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}{CUT}"
