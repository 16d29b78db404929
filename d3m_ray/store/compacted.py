"""One file for the rows of a table's many small ones, so that a reader opens one and not thousands.

It is a copy, beside the table: results stay where they are, by key. Of each it notes size and time of last change, and
what was written since, deleted since, or is not in it, is read from the result itself.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.store.files import Files
from d3m_ray.store.parquet import CHECKED_FORMAT, check_bytes, checked_writer, with_checksum
from d3m_ray.store.results import (
    MOST_ASKED_FOR,
    NUM_READERS,
    find_damaged,
    is_name,
    key_of,
    method_of,
    read_result,
    result_file,
    results_among,
    scan_results,
)
from d3m_ray.store.tables import table_spec
from d3m_ray.waiting import Say

COMPACTED = "compacted"
COMPACTABLE = ("trials", "fits", "removals", "failures", "lds")
"""Tables of a file for each trial or study; of the others a store has few files, and large ones."""
NUM_ROWS_TOGETHER = 8192  # of a row group: a reader of some results decodes those that hold one
NUM_FILES_TOGETHER = 1024  # read before their rows are written
_INDEX, _CHECKSUM = b"d3m_ray_index", b"d3m_ray_index_sha256"


@dataclass(frozen=True)
class Compaction:
    """What compacting one table came to."""

    table: str
    num_files: int
    """Of the table, whose rows the copy has."""
    num_bytes: int
    """Of the copy."""
    num_left_out: int
    """Files that are damaged or of another version."""


@dataclass(frozen=True)
class _Copied:
    """What a copy notes of a result."""

    version: str
    """Size and time of last change of its file."""
    row_group: int
    """Where its rows are."""


class Compacted:
    """Reads a table from its copy where that is current, and the other results one by one."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._indices: dict[str, tuple[str, Mapping[str, _Copied]]] = {}  # by table, of which version of the copy

    def __getstate__(self) -> dict[str, Any]:
        """Without the indices, which are large and read again where they are needed."""
        return {"_files": self._files, "_indices": {}}

    def scan(
        self,
        table: str,
        versions: Mapping[str, str],
        columns: Sequence[str] | None,
        filters: pc.Expression | list[Any] | None,
    ) -> pa.Table:
        """As `scan_results`, of the results at these paths, given with their sizes and times."""
        paths = sorted(versions)
        held, version = self._held(table, versions)
        if not held:
            return scan_results(self._files, table, paths, columns, filters)
        spec = table_spec(table)
        names = _schema(table).names[:-1] if columns is None else list(columns)
        if "path" in names:  # a column of the copy alone
            return scan_results(self._files, table, paths, columns, filters)
        with_keys = list(dict.fromkeys([*names, spec.key, *(["method"] if spec.by_method else [])]))
        try:
            content = _scan_copy(self._files, table, held, with_keys, filters)
            is_of_index = self._version(table) == version  # else it was replaced: what is in which row group is unknown
        except (pa.ArrowException, OSError):  # damaged or gone: the results are there
            is_of_index = False
        if not is_of_index:
            return scan_results(self._files, table, paths, columns, filters)
        if rest := [path for path in paths if path not in held]:
            of_rest = scan_results(self._files, table, rest, with_keys, filters)
            content = _in_order_of_paths(table, pa.concat_tables([content, of_rest]))
        return content.select(names)

    def scan_whole(
        self,
        table: str,
        versions: Mapping[str, str],
        columns: Sequence[str] | None,
        filters: pc.Expression | list[Any] | None,
    ) -> tuple[pa.Table, dict[str, DamagedError]]:
        """As `scan`, of those that are whole; and by path, what is wrong with the others.

        What is damaged is not missed where the copy has its rows.
        """
        held, _ = self._held(table, versions)
        faults = find_damaged(self._files, table, [path for path in versions if path not in held])
        try:
            return self.scan(table, _without(faults, versions), columns, filters), faults
        except DamagedError:  # so is the copy
            faults |= find_damaged(self._files, table, list(held))
            return self.scan(table, _without(faults, versions), columns, filters), faults

    def _held(self, table: str, versions: Mapping[str, str]) -> tuple[dict[str, _Copied], str | None]:
        """The results whose rows the copy has as they are, and of which version the copy is.

        It is not asked for a few results, nor where some are not named as results are: their rows tell another method.
        """
        few = table not in COMPACTABLE or len(versions) <= MOST_ASKED_FOR
        if few or not all(_is_named(table, path) for path in versions):
            return {}, None
        version = self._version(table)
        index = {} if version is None else self._index(table, version)
        copied = ((path, index.get(path)) for path in versions)
        return {path: of for path, of in copied if of is not None and of.version == versions[path]}, version

    def _version(self, table: str) -> str | None:
        """Size and time of last change of a table's copy, None where there is none."""
        path = compacted_file(table)
        return self._files.versions_of([path]).get(path)

    def _index(self, table: str, version: str) -> Mapping[str, _Copied]:
        """What this version of the copy has; nothing where it is damaged, or of another version of the package."""
        if self._indices.get(table, ("", {}))[0] != version:
            self._indices[table] = version, _read_index(self._files, table)
        return self._indices[table][1]


def _without(faults: Mapping[str, object], versions: Mapping[str, str]) -> dict[str, str]:
    return {path: version for path, version in versions.items() if path not in faults}


def compacted_file(table: str) -> str:
    """The path of a table's copy, below the root of the store."""
    return f"{COMPACTED}/{table}.parquet"


def compact_table(files: Files, table: str, say: Say) -> Compaction:
    """Write a table's copy, in place of an earlier one; files that cannot be read are told and left out.

    Raises StoreError where the store cannot be listed or written.
    """
    versions = files.versions(table)
    paths = [path for path in results_among(versions, table) if _is_named(table, path)]
    index: dict[str, tuple[str, int]] = {}
    sink = pa.BufferOutputStream()
    with checked_writer(sink, _schema(table)) as writer:
        for row_group, tables in enumerate(_together(_read_each(files, table, paths, say))):
            index |= {path: (versions[path], row_group) for path, _ in tables}
            content = pa.concat_tables([_with_path(table, path, rows) for path, rows in tables])
            writer.write_table(content, row_group_size=max(1, len(content)))
        encoded = json.dumps(index).encode()
        writer.add_key_value_metadata({_INDEX: encoded, _CHECKSUM: _checksum(encoded)})
    data = with_checksum(sink)
    files.put(compacted_file(table), data)
    return Compaction(table, len(index), data.size, len(paths) - len(index))


def check_copy(name: str, data: pa.Buffer) -> None:
    """Raises ValueError where the copy of the table of this name is no longer what was written."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _index_of(file)
        check_bytes(data, file)
        for number in range(file.num_row_groups):
            file.read_row_group(number)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error


# --- writing ----------------------------------------------------------------------------------------------------------


def _schema(table: str) -> pa.Schema:
    """The columns of the table as readers of all of it have them, with the path of each row's result at the end."""
    spec = table_spec(table)
    fields = [field.with_nullable(True) for field in spec.schema]
    more = ["method", "path"] if spec.by_method else ["path"]
    return pa.schema([*fields, *(pa.field(name, pa.string()) for name in more)])


def _read_each(files: Files, table: str, paths: Sequence[str], say: Say) -> Iterator[tuple[str, pa.Table]]:
    """Each result with its path, in their order; one that cannot be read is told, one that is gone by now is not.

    Raises StoreError where a bucket does not answer: no file's fault.
    """

    def read(path: str) -> pa.Table | StoreError:
        try:
            return read_result(files, table, path)
        except StoreError as error:
            return error

    with ThreadPoolExecutor(NUM_READERS) as readers:
        for start in range(0, len(paths), NUM_FILES_TOGETHER):
            some = paths[start : start + NUM_FILES_TOGETHER]
            for path, found in zip(some, readers.map(read, some), strict=True):
                if not isinstance(found, StoreError):
                    yield path, found
                elif isinstance(found.__cause__, FileNotFoundError):
                    continue
                elif isinstance(found.__cause__, OSError) and not files.is_local:
                    raise found
                else:
                    say(f"{found.args[0]}: left out of the copy")


def _together(results: Iterable[tuple[str, pa.Table]]) -> Iterator[list[tuple[str, pa.Table]]]:
    """The results in groups of at least so many rows as a row group has, but for the last."""
    group: list[tuple[str, pa.Table]] = []
    num_rows = 0
    for path, rows in results:
        group.append((path, rows))
        num_rows += len(rows)
        if num_rows >= NUM_ROWS_TOGETHER:
            yield group
            group, num_rows = [], 0
    if group:
        yield group


def _with_path(table: str, path: str, rows: pa.Table) -> pa.Table:
    """The rows of one result as the copy has them."""
    more = [method_of(path), path] if table_spec(table).by_method else [path]
    columns = [pa.repeat(pa.scalar(value, pa.string()), len(rows)) for value in more]
    return pa.table([*rows.columns, *columns], schema=_schema(table))


def _is_named(table: str, path: str) -> bool:
    """Whether the path is one that a result is written to, and not what somebody put beside: its rows tell it."""
    key = key_of(path)
    method = method_of(path) if table_spec(table).by_method else None
    return is_name(key) and (method is None or is_name(method)) and path == result_file(table, key, method)


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_index(files: Files, table: str) -> Mapping[str, _Copied]:
    try:
        with pq.ParquetFile(files.at(compacted_file(table)), filesystem=files.filesystem) as file:
            return _index_of(file) if file.schema_arrow.equals(_schema(table)) else {}
    except (pa.ArrowException, OSError, ValueError):  # it is only a copy: `check` says what is wrong with it
        return {}


def _index_of(file: pq.ParquetFile) -> Mapping[str, _Copied]:
    """Raises ValueError where it is not what was written."""
    metadata = file.metadata.metadata or {}
    encoded = metadata.get(_INDEX, b"")
    if metadata.get(_CHECKSUM) != _checksum(encoded):
        raise ValueError("its index does not have its checksum")
    return {path: _Copied(*of) for path, of in json.loads(encoded).items()}


def _scan_copy(
    files: Files,
    table: str,
    held: Mapping[str, _Copied],
    columns: Sequence[str],
    filters: pc.Expression | list[Any] | None,
) -> pa.Table:
    """These columns of these results, in the order of their paths. Raises ArrowException or OSError where it cannot."""
    row_groups = sorted({of.row_group for of in held.values()})
    place = files.at(compacted_file(table))
    fragment = CHECKED_FORMAT.make_fragment(place, files.filesystem, row_groups=row_groups)
    copy = ds.FileSystemDataset([fragment], _schema(table), CHECKED_FORMAT, files.filesystem)
    expression = ds.field("path").isin(list(held))
    if filters is not None:
        expression &= (asked := pq.filters_to_expression(filters))
        of_table = pa.schema(list(_schema(table))[:-1])  # none of them reads the copy's own column: that raises here
        ds.dataset(of_table.empty_table()).to_table(filter=asked)
    return copy.to_table(columns=list(columns), filter=expression)


def _in_order_of_paths(table: str, rows: pa.Table) -> pa.Table:
    """The rows in the order of their results' paths, those of one result as they are."""
    key = rows[table_spec(table).key]
    folder = f"{table}/method=" if table_spec(table).by_method else f"{table}/"
    ending = [rows["method"], "/"] if table_spec(table).by_method else []
    paths = pc.binary_join_element_wise(folder, *ending, key, ".parquet", "")
    return rows.take(pc.sort_indices(paths))


def _checksum(encoded: bytes) -> bytes:
    return hashlib.sha256(encoded).hexdigest().encode()
