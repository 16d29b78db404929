"""An own corpus: a folder or file of CSV, TSV, Parquet or JSON lines, its columns and splits named by options."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from d3m_ray.data.checks import NAME, DataError, Table, check_spelling, join_tables, listed, make_splits, text_keys
from d3m_ray.data.files import find_splits, shown_files
from d3m_ray.data.own_options import DEFAULT_SHARE, Own
from d3m_ray.data.rows import (
    GROUP_SEPARATOR,
    TEXT_SEPARATOR,
    Sieve,
    label_indices,
    label_names,
    parse_rows,
    rarest_group,
    rows_by_split,
)
from d3m_ray.data.sampling import cut_by_share, drop_repeats, drop_texts_of
from d3m_ray.data.tables import read_table, table_stem
from d3m_ray.errors import InputError
from d3m_ray.records import SPLIT_NAMES, Splits
from d3m_ray.wording import counted

CUT_OFF = "cut off train"  # of a note: val or test has no file of its own
ASIDE = "case, white space, Unicode form and characters that are not seen aside"
Frames = dict[str, pd.DataFrame]
Tables = Mapping[str, Table]


def load_own(options: Own, source: Path | None) -> Splits:
    """The splits of the folder or file; ids are `split/row`, rows counted from 0 in the file that the row came from.

    In val and test a row stands once per identity, with the id `split/row/identity`; in train once, under its rarest.
    Raises DataError where the source or a row breaks a rule, InputError where an option does not apply to it.
    """
    if source is None:
        raise DataError("an own corpus is read, not fetched: name its folder or file with --data, received none")
    files = find_splits(source)
    if "train" not in files:
        raise DataError(f"{source}: holds a train file at least, it holds {shown_files(source)}; add it, or rename one")
    if options.split_column is not None and len(files) > 1:
        raise InputError(
            f"splits come from files or from --split-column, received both {', '.join(files)} and "
            f"{options.split_column!r}; leave it out, or name one file with --data"
        )
    tables = {split: join_tables([read_table(p, options.columns) for p in paths]) for split, paths in files.items()}
    return splits_of_tables(options.name or _name_of(source), tables, options)


def splits_of_tables(name: str, tables: Tables, options: Own) -> Splits:
    """As `load_own`, from a table per split; where there is only train's, it is cut by column or share."""
    sieve = Sieve(options.bad_rows == "drop")
    rows = {split: parse_rows(table, options, sieve) for split, table in tables.items()}
    _check_not_empty(rows, tables, sieve)
    tables = {split: tables.get(split, tables["train"]) for split in SPLIT_NAMES}
    if options.split_column is not None:
        rows = rows_by_split(tables["train"], rows["train"], options, sieve)
    # before groups that a split lacks are left out: they may be another's in other letters
    check_spelling(name, "group", sorted({group for frame in rows.values() for group in frame["groups"].explode()}))
    names = label_names(pd.concat([frame["label"] for frame in rows.values()]), options)
    rows = {split: label_indices(tables[split], frame, names) for split, frame in rows.items()}
    notes = _notes(options, names)
    rows, cut = _cut_missing(name, rows, options)
    if cut:
        notes.append(f"{cut} {CUT_OFF}, seed {options.split_seed}")
    frames = _checked(dict(rows), tables, options, sieve)
    return make_splits(name, frames, sieve.num_dropped, label_names=names, notes=notes)


def _name_of(source: Path) -> str:
    stem = table_stem(source) if source.is_file() else source.resolve().name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", stem or "").lstrip("._-")[:60]
    return plain if NAME.fullmatch(plain) else "own"


def _notes(options: Own, names: tuple[str, ...]) -> list[str]:
    notes = []
    if len(options.text_columns) > 1:
        notes.append(f"text is {TEXT_SEPARATOR.join(options.text_columns)}")
    if len(options.group_columns) > 1:
        notes.append(f"group is {GROUP_SEPARATOR.join(options.group_columns)}")
    if options.label_threshold is not None:
        notes.append(f"label {names[1]} where {options.label_column} >= {options.label_threshold:g}, else {names[0]}")
    if options.identity_columns:
        notes.append("a row of several identities stands under each in val and test, under the rarest in train")
    return notes


def _check_not_empty(rows: Frames, tables: Tables, sieve: Sieve) -> None:
    for split, frame in rows.items():
        if frame.empty:
            left_out = "; ".join(f"{count:,} {reason}" for reason, count in sieve.num_dropped.items() if count)
            raise DataError(
                f"{tables[split].source}: every split has examples, {split} has none (left out: {left_out or 'no row'})"
                "; name other columns, or give it rows"
            )


def _cut_missing(name: str, rows: Frames, options: Own) -> tuple[Frames, str]:
    """The rows with val and test cut off train where they are missing, and what was cut in words."""
    if "train" not in rows:
        raise DataError(f"{name}: has rows of train, received those of {', '.join(rows) or 'no split'} only; add some")
    given = {"val": options.val_share, "test": options.test_share}
    for split, share in given.items():
        if split in rows and share is not None:
            raise InputError(
                f"--{split}-share cuts {split} off train where there is none; {name} has {split}: leave it out"
            )
    shares = {split: share or DEFAULT_SHARE for split, share in given.items() if split not in rows}
    if not shares and options.split_seed:
        raise InputError(f"--split-seed decides what is cut off train; {name} has val and test: leave it out")
    if not shares:
        return rows, ""
    if sum(shares.values()) >= 1:
        of_all = " and ".join(f"{share:g} as {split}" for split, share in shares.items())
        raise InputError(f"--val-share and --test-share leave train a share, {of_all} leave none; lower one")
    train = rows["train"]
    _check_can_be_cut(name, train, len(shares) + 1, options)
    counts = train["groups"].explode().value_counts()
    strata = train.assign(group=rarest_group(train["groups"], counts))
    rest, parts = cut_by_share(strata, shares, np.random.default_rng(options.split_seed))
    return {**rows, "train": rest, **parts}, " and ".join(f"{split} ({share:.0%})" for split, share in shares.items())


def _check_can_be_cut(name: str, train: pd.DataFrame, num_splits: int, options: Own) -> None:
    """Every group has a text for each split, unless small groups are left out."""
    texts = pd.DataFrame({"text": text_keys(train["text"]), "group": train["groups"]}).explode("group")
    counts = texts.drop_duplicates().groupby("group").size()
    small = counts.index[counts < num_splits]
    if len(small) and not options.min_group_size:
        raise DataError(
            f"{name}: a group has at least {num_splits} different texts to be cut into as many splits, these have "
            f"fewer: {listed(small)}; give them more, or leave them out, which --min-group-size 1 does"
        )


def _checked(rows: Frames, tables: Tables, options: Own, sieve: Sieve) -> Frames:
    """One row per example, repeats and what else must not be left out or refused, without groups that are too small."""
    while True:
        _check_not_empty(rows, tables, sieve)
        trial = Sieve(sieve.drops)
        frames = _without_repeats(rows, tables, options, trial)
        small = _small_groups(frames, options.min_group_size)
        if not small:
            sieve.num_dropped.update(trial.num_dropped)
            return frames
        reason = f"row of a group with fewer than {options.min_group_size} rows in a split"
        for split, frame in rows.items():
            left = [tuple(name for name in names if name not in small) for names in frame["groups"]]
            groups = pd.Series(left, index=frame.index, dtype=object)
            rows[split] = frame.assign(groups=groups)[groups.map(len).gt(0)]
            sieve.num_dropped[reason] += len(frame) - len(rows[split])


def _small_groups(frames: Frames, min_size: int) -> set[str]:
    counts = pd.DataFrame({split: frame["group"].value_counts() for split, frame in frames.items()}).fillna(0)
    return set(counts.index[counts.min(axis="columns") < min_size])


def _without_repeats(rows: Frames, tables: Tables, options: Own, sieve: Sieve) -> Frames:
    """Rows of one group each, ids and all, no text twice in a group and none in two splits; `text_keys` compares."""
    frames: Frames = {}
    for split, frame in rows.items():
        of_split = _one_group_a_row(split, frame, options)
        by_text = of_split.groupby([text_keys(of_split["text"]), "group"])["label"]
        differs = of_split["label"] != by_text.transform("first")
        if sieve.drops:
            differs = by_text.transform("nunique") > 1
        rule = f"a text has one label per group; another row gives the same text and group another label ({ASIDE})"
        fix, reason = "correct one of the two, or leave both out", f"{split} row of a text with two labels"
        single = sieve.without(tables[split], of_split, differs, rule, fix, reason)
        frames[split] = drop_repeats(single, per_group=True)
        sieve.num_dropped[f"{split} row repeats another"] += len(single) - len(frames[split])
    if sieve.drops:
        drop_texts_of(frames, "train", ("test", "val"), sieve.num_dropped)
        drop_texts_of(frames, "val", ("test",), sieve.num_dropped)
    _refuse_shared_texts(tables, frames)
    return frames


def _one_group_a_row(split: str, rows: pd.DataFrame, options: Own) -> pd.DataFrame:
    row_ids = [f"{split}/{row}" for row in rows.index]
    if not options.identity_columns:
        return rows.assign(group=[names[0] for names in rows["groups"]], example_id=row_ids)
    if split == "train":  # once, or a removed example would have a twin that stays
        counts = rows["groups"].explode().value_counts()
        return rows.assign(group=rarest_group(rows["groups"], counts), example_id=row_ids)
    each = rows.assign(group=rows["groups"], example_id=row_ids).explode("group")
    return each.assign(example_id=each["example_id"] + "/" + each["group"])


def _refuse_shared_texts(tables: Tables, frames: Frames) -> None:
    keys = {split: text_keys(frame["text"]) for split, frame in frames.items()}
    for left, right in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = keys[left].isin(set(keys[right]))
        if not shared.any():
            continue
        row = keys[left].index[shared][0]
        other = keys[right].index[keys[right] == keys[left][shared].iloc[0]][0]
        raise DataError(
            f"{tables[left].place(row)}: a text stands in one split only, this one also in "
            f"{tables[right].place(other)} ({ASIDE}); remove it from {left}, and all of the "
            f"{counted(int(shared.sum()), 'row')} there whose text {right} has (d3m-ray run own --bad-rows drop does)"
        )
