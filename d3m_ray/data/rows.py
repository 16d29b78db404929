"""The rows of an own corpus: a table's columns as text, label, groups and split, by the user's options."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pandas as pd

from d3m_ray.data.checks import DataError, Table, listed
from d3m_ray.data.files import SPLIT_STEMS
from d3m_ray.data.own_options import Own
from d3m_ray.data.values import canonical, is_number, is_whole, numbers_of, texts_of, words_of
from d3m_ray.records import BINARY_LABELS, SPLIT_NAMES

TEXT_SEPARATOR = " | "
GROUP_SEPARATOR = " & "
IDENTITY_THRESHOLD = 0.5  # as CivilComments, which has a share of the annotators
NO_IDENTITY = "none"
MAX_LABELS = 20  # more, and the column is rather an id or a score, unless --labels names them


@dataclass
class Sieve:
    """What becomes of rows that break a rule: the first one ends all, or they are left out and counted."""

    drops: bool
    num_dropped: Counter[str] = field(default_factory=Counter)

    def without(
        self, table: Table, rows: pd.DataFrame, bad: pd.Series, rule: str, fix: str, reason: str
    ) -> pd.DataFrame:
        """The rows that are not bad, the others counted under the reason; or DataError at the first."""
        if not self.drops:
            table.refuse(bad, rule, f"{fix} (d3m-ray run own --bad-rows drop leaves such rows out)")
        self.num_dropped[reason] += int(bad.sum())
        return rows[~bad]


def parse_rows(table: Table, options: Own, sieve: Sieve) -> pd.DataFrame:
    """`text`, `label` (a word) and `groups` (a tuple of names) of each row, indexed as the table.

    Raises DataError, naming the first such row, where a value is of another kind than its column's, or where a text,
    label or group is blank and the sieve drops no rows.
    """
    rows = pd.DataFrame(
        {
            "text": _joined(table, options.text_columns, TEXT_SEPARATOR, texts_of),
            "label": _label_words(table, options),
            "groups": _identities(table, options) if options.identity_columns else _combinations(table, options),
        },
        dtype=object,
    )
    for column, noun in (("text", "text"), ("label", "label"), ("groups", "group")):
        if column == "groups" and options.identity_columns:
            continue
        rule, fix = f"an example has a {noun}, this one is blank", "fill it in or leave out the row"
        rows = sieve.without(table, rows, rows[column].isna(), rule, fix, f"row without {noun}")
    return _with_identities(rows, options, sieve) if options.identity_columns else rows


def label_names(words: pd.Series, options: Own) -> tuple[str, ...]:
    """The labels in order: as the options have them, else by number, else by alphabet.

    Raises DataError where the words are no labels by the look of them: of one kind only, or too many, or scores.
    """
    if options.labels or options.label_threshold is not None:
        return tuple(map(canonical, options.labels)) if options.labels else BINARY_LABELS
    names = set(words)
    scores = {name for name in names if is_number(name) and not is_whole(name)}
    if scores or len(names) > MAX_LABELS:
        raise DataError(
            f"--label-column {options.label_column} holds words or whole numbers, at most {MAX_LABELS} different ones, "
            f"received {len(names):,}, such as {listed(scores or names)}; make two labels of a score with "
            "--label-threshold 0.5, or name them all with --labels"
        )
    if len(names) < 2:
        raise DataError(
            f"--label-column {options.label_column} holds at least two different labels, received {listed(names)}; "
            "name another column, or give it rows of another label"
        )
    return tuple(sorted(names, key=Decimal) if all(map(is_number, names)) else sorted(names))


def label_indices(table: Table, rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows with each label as its place among the names. Raises DataError at a label that is none of them."""
    indices = rows["label"].map({name: index for index, name in enumerate(names)})
    rule = f"a label is {' or '.join(names)}"
    fix = "correct it or leave out the row; d3m-ray run own --labels takes other labels"
    table.refuse(indices.isna(), rule, fix, rows["label"])
    return rows.assign(label=indices.astype("int64"))


def rows_by_split(table: Table, rows: pd.DataFrame, options: Own, sieve: Sieve) -> dict[str, pd.DataFrame]:
    """The rows of each split that the split column names, in the order train, val, test; at least one split.

    Raises DataError at a value that names none, at a blank one where the sieve drops no rows, and where none is left.
    """
    assert options.split_column is not None, "only asked where there is one"
    meant = dict(zip(map(canonical, options.split_values), SPLIT_NAMES, strict=True)) if options.split_values else {}
    words = words_of(table, options.split_column)
    splits = words.map(meant) if meant else words.str.lower().map(SPLIT_STEMS)
    names = ", ".join(meant or SPLIT_STEMS)
    found = listed({word for word in words if word is not None})
    fix = f"the column holds {found}: say with --split-values which are train, val and test"
    table.refuse(splits.isna() & words.notna(), f"{options.split_column} is one of {names}", fix, words)
    rule, fix = f"an example has a split, its {options.split_column} is blank", "fill it in or leave out the row"
    rows = sieve.without(table, rows, splits[rows.index].isna(), rule, fix, "row without split")
    if rows.empty:
        raise DataError(f"{table.source}: {options.split_column} is blank in every row; name another --split-column")
    return {split: rows[splits[rows.index] == split] for split in SPLIT_NAMES if (splits[rows.index] == split).any()}


def rarest_group(groups: pd.Series, counts: pd.Series) -> pd.Series:
    """Of each row's groups the one with the smallest count; of equals, the first."""
    rarest = {names: min(names, key=lambda name: counts[name]) for names in set(groups)}
    return groups.map(rarest)


def _joined(table: Table, columns: Sequence[str], separator: str, read: Callable[[Table, str], pd.Series]) -> pd.Series:
    """The columns' values of each row as one, None where any is blank."""
    read_columns = [read(table, column) for column in columns]
    if len(columns) == 1:
        return read_columns[0]
    rows = zip(*read_columns, strict=True)
    joined = [None if None in values else separator.join(values) for values in rows]
    return pd.Series(joined, index=table.frame.index, dtype=object)


def _label_words(table: Table, options: Own) -> pd.Series:
    if options.label_threshold is None:
        return words_of(table, options.label_column)
    scores = numbers_of(table, options.label_column)
    low, high = label_names(pd.Series(dtype=object), options)
    words = pd.Series(np.where(scores >= options.label_threshold, high, low), index=scores.index, dtype=object)
    return words.where(scores.notna(), None)


def _combinations(table: Table, options: Own) -> pd.Series:
    """The group of each row, a tuple of one; None where a column is blank."""
    names = _joined(table, options.groups_by, GROUP_SEPARATOR, words_of)
    inner = [word for column in options.groups_by for word in words_of(table, column) if word is not None]
    if len(options.groups_by) > 1 and any(GROUP_SEPARATOR in word for word in set(inner)):
        raise DataError(
            f"{table.source}: the groups of {len(options.groups_by)} --group-columns are joined by "
            f"{GROUP_SEPARATOR!r}, which one of their words holds; write it otherwise"
        )
    return names.map(lambda name: None if name is None else (name,))


def _identities(table: Table, options: Own) -> pd.Series:
    """The identities of each row, a tuple of names, of none where it has none; None where any is blank."""
    columns = options.identity_columns
    scores = np.column_stack([numbers_of(table, column) for column in columns])
    for column, values in zip(columns, scores.T, strict=True):
        outside = pd.Series((values < 0) | (values > 1), index=table.frame.index)
        table.refuse(outside, f"{column} is from 0 to 1", "name identity columns only", table.frame[column])
    if options.missing_identities == "zero":
        scores = np.nan_to_num(scores)
    threshold = IDENTITY_THRESHOLD if options.identity_threshold is None else options.identity_threshold
    has = scores >= threshold
    patterns, which = np.unique(has, axis=0, return_inverse=True)
    tuples = [tuple(np.array(columns, dtype=object)[pattern]) for pattern in patterns]
    missing = np.isnan(scores).any(axis=1)
    groups = [None if blank else tuples[pattern] for blank, pattern in zip(missing, which.ravel(), strict=True)]
    return pd.Series(groups, index=table.frame.index, dtype=object)


def _with_identities(rows: pd.DataFrame, options: Own, sieve: Sieve) -> pd.DataFrame:
    """The rows whose identities are known, those of none in the group for it or left out; both are counted."""
    known = rows[rows["groups"].notna()]
    sieve.num_dropped["row with a blank identity"] += len(rows) - len(known)
    group = NO_IDENTITY if options.no_identity_group is None else options.no_identity_group.strip()
    if group:
        return known.assign(groups=known["groups"].map(lambda names: names or (group,)))
    some = known[known["groups"].map(bool).astype(bool)]
    sieve.num_dropped["row without identity"] += len(known) - len(some)
    return some
