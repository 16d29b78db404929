"""Read raw tables: CSV with the line of each row, Parquet, or the hub."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.data.checks import DataError, Table

MAX_FIELD_CHARACTERS = 2**24  # the csv module's own limit of 2**17 is short for a document


def read_csv(path: Path, columns: Sequence[str]) -> Table:
    """These columns of a CSV file with a header, every value as the string that stands there, blank lines left out.

    UTF-8, with or without a byte order mark; comma and double quote. Raises DataError where the file cannot be read
    so, lacks a column, or has no row.
    """
    reader = csv.reader(io.StringIO(_decode(path), newline=""), strict=True)
    records: list[list[str]] = []
    lines: list[int] = []
    before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(str(path), header, columns)
        begins = reader.line_num + 1
        for record in reader:
            if record:
                _check_length(path, begins, record, header)
                records.append(record)
                lines.append(begins)
            begins = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f'{path}, line {reader.line_num}: a CSV file quotes with " and doubles it inside a field; {error}; '
            "mend the quotes, or write the file anew with pandas.DataFrame.to_csv"
        ) from error
    finally:
        csv.field_size_limit(before)
    _check_rows(str(path), records)
    places = [header.index(column) for column in columns]
    values = {column: [record[place] for record in records] for column, place in zip(columns, places, strict=True)}
    return Table(str(path), pd.DataFrame(values, dtype="str"), np.array(lines))


def read_parquet(path: Path, columns: Sequence[str]) -> Table:
    """These columns of a Parquet file. Raises DataError where it cannot be read, lacks a column, or has no row."""
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); fetch it again") from error
    return as_table(str(path), frame, columns)


def as_table(source: str, frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """These columns of a frame that came from `source`. Raises DataError where it lacks one, or has no row."""
    _check_columns(source, list(frame.columns), columns)
    _check_rows(source, frame)
    return Table(source, frame[list(columns)].reset_index(drop=True))


def load_from_hub(name: str, configuration: str | None = None, revision: str | None = None) -> Any:
    """The `datasets.DatasetDict` of a hub dataset; nothing from the hub is run. Raises DataError where it fails."""
    import datasets  # seconds to import, and most runs read local files

    try:
        return datasets.load_dataset(name, configuration, revision=revision)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"without --data the corpus comes from the hub; {name} could not be loaded from there: {error}\n"
            "Without a network, download the corpus first and name its folder: --data DIR."
        ) from error


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check that it is a file that you may read"
        ) from error
    if not content.strip():
        raise DataError(f"{path}: a CSV file has a header and rows, this file is empty; write it anew")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: a CSV file is encoded in UTF-8, received byte {content[error.start]:#04x}; "
            "save it as UTF-8 (in pandas: encoding='utf-8')"
        ) from error


def _check_columns(source: str, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in header]
    if missing:
        raise DataError(
            f"{source}, header: the columns are {', '.join(columns)}; {', '.join(missing)} missing, "
            f"received {', '.join(header)}; rename or add it (the separator is a comma)"
        )


def _check_length(path: Path, line: int, record: Sequence[str], header: Sequence[str]) -> None:
    if len(record) != len(header):
        raise DataError(
            f"{path}, line {line}: a row has as many fields as the header, {len(header)}, received {len(record)}; "
            'put a text with commas into double quotes ("...")'
        )


def _check_rows(source: str, rows: Sequence[Any] | pd.DataFrame) -> None:
    if not len(rows):
        raise DataError(f"{source}: holds at least one row below the header, this one holds none; add rows")
