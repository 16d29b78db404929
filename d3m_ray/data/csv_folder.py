"""A folder of train.csv, val.csv and test.csv with text, label and group: the user's own splits, taken as they are."""

from pathlib import Path

from d3m_ray.data.checks import DataError
from d3m_ray.data.own import splits_of_tables
from d3m_ray.data.own_options import Own
from d3m_ray.data.text_files import read_csv
from d3m_ray.records import BINARY_LABELS, SPLIT_NAMES, Splits

AS_IT_STANDS = Own(labels=BINARY_LABELS)


def is_csv_folder(folder: Path) -> bool:
    """Whether the folder holds any of train.csv, val.csv and test.csv."""
    return any((folder / f"{split}.csv").exists() for split in SPLIT_NAMES)


def load_csv_folder(folder: Path, name: str) -> Splits:
    """The splits of the folder; ids are `split/row`, rows counted from 0 below the header.

    A row that repeats another's text, as it reads, and group is left out and counted. Raises DataError where a file is
    missing or cannot be read, a row breaks a rule, repeats another with a different label, or a text stands in two
    splits.
    """
    missing = [f"{split}.csv" for split in SPLIT_NAMES if not (folder / f"{split}.csv").exists()]
    if missing:
        raise DataError(
            f"{folder}: holds train.csv, val.csv and test.csv; {', '.join(missing)} missing, add it, or let "
            "d3m-ray run own read the folder, which takes other names, formats and splits"
        )
    tables = {split: read_csv(folder / f"{split}.csv", AS_IT_STANDS.columns) for split in SPLIT_NAMES}
    return splits_of_tables(name, tables, AS_IT_STANDS)
