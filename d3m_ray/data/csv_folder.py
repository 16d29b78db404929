"""A folder of train.csv, val.csv and test.csv with text, label and group: the user's own splits, taken as they are."""

from pathlib import Path

import pandas as pd

from d3m_ray.data.checks import ROW_COLUMNS, DataError, Table, make_splits, parse_rows, text_keys
from d3m_ray.data.tables import read_csv
from d3m_ray.records import SPLIT_NAMES, Splits


def is_csv_folder(folder: Path) -> bool:
    """Whether the folder holds any of train.csv, val.csv and test.csv."""
    return any((folder / f"{split}.csv").exists() for split in SPLIT_NAMES)


def load_csv_folder(folder: Path, name: str) -> Splits:
    """The splits of the folder; ids are `split/row`, rows counted from 0 below the header.

    A row that repeats another's text and group is left out and counted. Raises DataError where a file is missing or
    cannot be read, a row breaks a rule, repeats another with a different label, or a text stands in two splits.
    """
    missing = [f"{split}.csv" for split in SPLIT_NAMES if not (folder / f"{split}.csv").exists()]
    if missing:
        raise DataError(f"{folder}: holds train.csv, val.csv and test.csv; {', '.join(missing)} missing, add it")
    tables = {split: read_csv(folder / f"{split}.csv", ROW_COLUMNS) for split in SPLIT_NAMES}
    frames: dict[str, pd.DataFrame] = {}
    num_dropped: dict[str, int] = {}
    for split, table in tables.items():
        rows = parse_rows(table)
        rows = rows.assign(example_id=[f"{split}/{row}" for row in rows.index])
        _refuse_contradictions(table, rows)
        frames[split] = rows.drop_duplicates(["text", "group"])
        num_dropped[f"{split} row repeats another"] = len(rows) - len(frames[split])
    _refuse_shared_texts(tables, frames)
    return make_splits(name, frames, num_dropped)


def _refuse_contradictions(table: Table, rows: pd.DataFrame) -> None:
    expected = rows.groupby(["text", "group"])["label"].transform("first")
    rule = "a text has one label per group; another row gives the same text and group the other label"
    table.refuse(rows["label"] != expected, rule, "correct one of the two, or leave both out")


def _refuse_shared_texts(tables: dict[str, Table], frames: dict[str, pd.DataFrame]) -> None:
    keys = {split: text_keys(frame["text"]) for split, frame in frames.items()}
    for left, right in (("train", "val"), ("train", "test"), ("val", "test")):
        shared = keys[left].isin(set(keys[right]))
        if not shared.any():
            continue
        row = keys[left].index[shared][0]
        other = keys[right].index[keys[right] == keys[left].loc[row]][0]
        raise DataError(
            f"{tables[left].place(row)}: a text stands in one split only, this one also in "
            f"{tables[right].place(other)} (case and white space aside); "
            f"remove it from {left}.csv, and all of the {int(shared.sum()):,} rows there whose text {right}.csv has"
        )
