"""Read raw tables by the ending of their names, or from the hub."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from d3m_ray.data.checks import DataError, Table
from d3m_ray.data.text_files import check_columns, check_has_rows, read_csv, read_json_lines


def read_parquet(path: Path, columns: Sequence[str]) -> Table:
    """These columns of a Parquet file. Raises DataError where it cannot be read, lacks a column, or has no row."""
    try:
        file = parquet.ParquetFile(path)
        names = file.schema_arrow.names
        check_columns(str(path), names, columns, "pyarrow.parquet.read_schema shows them")
        table = file.read(list(dict.fromkeys(columns)))
        table.validate(full=True)  # a text that is no UTF-8 is told with its row
        # as float64, what pandas makes of integers beside a null, ids above 2**53 would become one another's
        frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}); fetch or write it again") from error
    return as_table(str(path), frame, columns)


def _read_tsv(path: Path, columns: Sequence[str]) -> Table:
    return read_csv(path, columns, separator="\t")


READERS: Mapping[str, Callable[[Path, Sequence[str]], Table]] = {
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".tsv": _read_tsv,
    ".tsv.gz": _read_tsv,
    ".parquet": read_parquet,
    ".jsonl": read_json_lines,
    ".jsonl.gz": read_json_lines,
    ".ndjson": read_json_lines,
    ".ndjson.gz": read_json_lines,
    ".json": read_json_lines,
    ".json.gz": read_json_lines,
}
"""What reads a table, by the ending of its file's name."""


def table_stem(path: Path) -> str | None:
    """The name of a table's file without its ending; None where nothing here reads the file."""
    endings = [ending for ending in READERS if path.name.lower().endswith(ending)]
    return path.name[: -len(max(endings, key=len))] if endings else None


def read_table(path: Path, columns: Sequence[str]) -> Table:
    """These columns of a file that `table_stem` knows. Raises DataError where it cannot be read or lacks a column."""
    stem = table_stem(path)
    assert stem is not None, f"{path} has an ending that READERS lacks"
    return READERS[path.name[len(stem) :].lower()](path, columns)


def as_table(source: str, frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """These columns of a frame that came from `source`. Raises DataError where it lacks one, or has no row."""
    check_columns(source, list(frame.columns), columns, "the columns of the original")
    check_has_rows(source, frame)
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
