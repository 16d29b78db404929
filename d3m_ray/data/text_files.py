"""Read tables from text files, CSV, TSV and JSON lines, gzipped or not, with the line at which each row begins."""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.data.checks import DataError, Table, listed

MAX_FIELD_CHARACTERS = 2**31 - 1  # none, that is: the csv module's own limit of 2**17 is short for a document
LINE_END = re.compile("[\r\n]")
SEPARATORS = {",": "comma", "\t": "tab"}


def read_csv(path: Path, columns: Sequence[str], separator: str = ",") -> Table:
    """These columns of a CSV file with a header, every value as the string that stands there, blank lines left out.

    UTF-8, with or without a byte order mark; a comma or tab, and double quotes. Raises DataError where the file cannot
    be read so, lacks a column or has it twice, has no row, or has rows inside a quoted field by the look of them.
    """
    header, records, lines, spans = _read_records(path, columns, separator)
    check_has_rows(str(path), records)
    places = [header.index(column) for column in columns]
    _refuse_swallowed_rows(path, separator, records, lines, spans, places)
    values = {column: [record[place] for record in records] for column, place in zip(columns, places, strict=True)}
    return Table(str(path), pd.DataFrame(values, dtype="str"), np.array(lines))


def _read_records(
    path: Path, columns: Sequence[str], separator: str
) -> tuple[list[str], list[list[str]], list[int], dict[int, list[str]]]:
    """The header, the records, the line on which each begins, and by record its lines where it has more than one."""
    content = _decode(path)
    read_lines: list[str] = []  # since the last record
    reader = csv.reader(_remembered(content, read_lines), delimiter=separator, strict=True)
    records: list[list[str]] = []
    lines: list[int] = []
    spans: dict[int, list[str]] = {}
    begins = 1
    before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        header = [name.strip() for name in next(reader, [])]
        check_columns(f"{path}, header", header, columns, f"the separator is a {SEPARATORS[separator]}")
        begins = reader.line_num + 1
        read_lines.clear()
        for record in reader:
            if record:
                _check_length(path, begins, record, header, separator)
                if reader.line_num > begins:
                    spans[len(records)] = read_lines.copy()
                records.append(record)
                lines.append(begins)
            read_lines.clear()
            begins = reader.line_num + 1
    except csv.Error as error:
        line = _line_of_last_quote(content, begins, reader.line_num, separator)
        raise DataError(
            f'{path}, line {line}: a CSV file quotes a whole field with " and doubles it inside; the field that begins '
            f"here does not end so ({error}); fix the quotes, or write the file with pandas.DataFrame.to_csv"
        ) from error
    finally:
        csv.field_size_limit(before)
    return header, records, lines, spans


def read_json_lines(path: Path, columns: Sequence[str]) -> Table:
    """These keys of a file with one JSON object a line, None where a row lacks one, blank lines left out.

    Raises DataError where a line is no JSON object or has a key twice, no row has a column, or there is no row.
    """
    records: list[dict[str, Any]] = []
    lines: list[int] = []
    for line, content in enumerate(_decode(path).split("\n"), start=1):
        if content.strip():
            records.append(_parse_line(path, line, content))
            lines.append(line)
    check_has_rows(str(path), records)
    keys = dict.fromkeys(key for record in records for key in record)
    check_columns(str(path), list(keys), columns, "every line is an object with these keys")
    values = {column: [record.get(column) for record in records] for column in columns}
    return Table(str(path), pd.DataFrame(values, dtype=object), np.array(lines))


def check_columns(where: str, header: Sequence[str], columns: Sequence[str], fix: str) -> None:
    """Raises DataError where a column is missing, or stands twice so that nobody knows which is meant."""
    missing = [column for column in columns if column not in header]
    if missing:
        raise DataError(
            f"{where}: the columns are {', '.join(columns)}; {', '.join(missing)} missing, "
            f"received {', '.join(map(str, header))}; rename or add ({fix}), or name yours by the flags of "
            "d3m-ray run own (--text-columns, --label-column, --group-columns)"
        )
    twice = sorted({column for column in columns if list(header).count(column) > 1})
    if twice:
        raise DataError(f"{where}: a column's name stands once, {', '.join(twice)} stands twice; rename one of the two")


def check_has_rows(source: str, rows: Sequence[Any] | pd.DataFrame) -> None:
    """Raises DataError where there are none."""
    if not len(rows):
        raise DataError(f"{source}: holds at least one row below the header, this one holds none; add rows")


def reject_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object with each key once; JSON itself would let the last of two win. Raises ValueError."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = {key for key in keys if keys.count(key) > 1}
        raise ValueError(f"a key stands once in an object, these stand twice: {listed(twice)}")
    return made


def _parse_line(path: Path, line: int, content: str) -> dict[str, Any]:
    try:
        record = json.loads(content, object_pairs_hook=reject_twice)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}, line {line}: a line is one JSON object ({error}); in pandas: "
            "to_json(PATH, orient='records', lines=True)"
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"{path}, line {line}: a line is one JSON object, received {type(record).__name__}; in pandas: "
            "to_json(PATH, orient='records', lines=True)"
        )
    return record


def _decode(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a whole gzip file ({error}); fetch or compress it again") from error
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); check that it is a file that you may read"
        ) from error
    if not content.strip():
        raise DataError(f"{path}: a table has a header and rows, this file is empty; write it again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: a text file is encoded in UTF-8, received byte {content[error.start]:#04x}; "
            "save it as UTF-8 (in pandas: encoding='utf-8')"
        ) from error


def _check_length(path: Path, line: int, record: Sequence[str], header: Sequence[str], separator: str) -> None:
    if len(record) != len(header):
        raise DataError(
            f"{path}, line {line}: a row has as many fields as the header, {len(header)}, received {len(record)}; "
            f'put a text with {SEPARATORS[separator]}s into double quotes ("...")'
        )


def _refuse_swallowed_rows(
    path: Path,
    separator: str,
    records: Sequence[Sequence[str]],
    lines: Sequence[int],
    spans: Mapping[int, Sequence[str]],
    places: Sequence[int],
) -> None:
    """Raises DataError where quotes that are part of the texts make one row of many: a file written without quoting.

    `spans` has the lines of each record, by its place, that stands on more than one. They are taken for rows where most
    of them have as many fields as the header, and in one of the columns a value that it has elsewhere too. A TSV file
    has no field of lines and tabs either way.
    """
    if not spans:
        return
    known = [{record[place] for record in records if not LINE_END.search(record[place])} - {""} for place in places]
    for number, span in spans.items():
        rows = [line.rstrip("\r\n").split(separator) for line in span if line.strip()]
        whole = [row for row in rows if len(row) == len(records[number])]
        alike = [sum(row[place] in values for row in whole) for place, values in zip(places, known, strict=True)]
        has_tab = separator == "\t" and any("\t" in field and LINE_END.search(field) for field in records[number])
        if has_tab or 2 * max(alike, default=0) > len(rows):
            raise DataError(
                f"{path}, line {lines[number]}: a quoted field that begins here goes over {len(span)} lines that look "
                'like rows, and swallows them; where " is part of a text, quote the whole field and double the " '
                "inside, which pandas.DataFrame.to_csv does, or write Parquet"
            )


def _remembered(content: str, read_lines: list[str]) -> Iterator[str]:
    """The lines, each also added to `read_lines`."""
    for line in io.StringIO(content, newline=""):
        read_lines.append(line)
        yield line


def _line_of_last_quote(content: str, first: int, last: int, separator: str) -> int:
    """The line at which the last quoted field opens in lines first to last, of which the first begins a row."""
    opened, quoted, closing, at_start = first, False, False, True
    for line, characters in _lines_of(content, first, last):
        for character in characters:
            if quoted:
                quoted, closing = character != '"', character == '"'
                continue
            at_end = character in (separator, "\n", "\r")
            if closing and not at_end and character != '"':
                return opened
            if character == '"' and (at_start or closing):  # a doubled quote goes on with its field
                quoted, opened = True, line if at_start else opened
            at_start, closing = at_end, False
    return opened


def _lines_of(content: str, first: int, last: int) -> Iterator[tuple[int, str]]:
    lines = io.StringIO(content, newline="")
    return ((number, line) for number, line in enumerate(lines, start=1) if first <= number <= last)
