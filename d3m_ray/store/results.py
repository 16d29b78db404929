"""The Parquet files of results: where each lies, and reading one or all of a table, each checked."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow import fs

from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.store.files import Files
from d3m_ray.store.parquet import CHECKED_FORMAT, parts_from_bytes, table_from_bytes
from d3m_ray.store.tables import table_spec, under_schema

MOST_ASKED_FOR = 4  # files whose sizes a bucket is asked for one by one: of more, one listing of the table tells them
NUM_LISTINGS = 3  # a failure deleted between listing and reading: list again
NUM_READERS = 16  # of files at once: a bucket takes tens of milliseconds for each
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # readers skip names that begin with "." or "_"


def is_name(text: str) -> bool:
    """Whether the text can be the name of a file, without its ending, or of a method."""
    return _NAME.fullmatch(text) is not None


def checked_name(text: str) -> str:
    """The text. Raises ValueError where it is no name."""
    if not is_name(text):
        raise ValueError(f"a name is letters, digits, '.', '_' and '-', a letter or digit first; received {text!r}")
    return text


def table_folder(table: str, method: str | None) -> str:
    """The folder of a table, or of one method's part of it. Raises ValueError where the table has it otherwise."""
    if table_spec(table).by_method != (method is not None):
        rule = "has a method for each result" if table_spec(table).by_method else "has no methods"
        raise ValueError(f"{table} {rule}; received method {method!r}")
    return table if method is None else f"{table}/method={checked_name(method)}"


def result_file(table: str, key: str, method: str | None) -> str:
    """The path of a result, below the root of the store."""
    return f"{table_folder(table, method)}/{checked_name(key)}.parquet"


def key_of(path: str) -> str:
    """The key of the result that lies at this path."""
    return path.rsplit("/", 1)[-1].removesuffix(".parquet")


def method_of(path: str) -> str:
    """The method of the result that lies at this path, in a table that has methods."""
    return path.split("/")[1].removeprefix("method=")


def result_files(files: Files, table: str, folder: str) -> list[str]:
    """The paths of a table's results below a folder, in the order of methods and keys."""
    return results_among(files.paths(folder), table)


def results_among(paths: Iterable[str], table: str) -> list[str]:
    """Those of the paths below a table's folder that are its results, in the order of methods and keys."""
    depth = 2 if table_spec(table).by_method else 1
    return sorted(path for path in paths if path.endswith(".parquet") and path.count("/") == depth)


def read_result(files: Files, table: str, path: str) -> pa.Table:
    """One result under the table's schema.

    Raises DamagedError where the file is no longer what was written, StoreError where another version wrote it.
    """
    return _checked(files, table, path, files.read(path, table_from_bytes))


def read_parts(files: Files, table: str, path: str) -> Iterator[pa.Table]:
    """One result as `read_result`, a part of its rows after another, so that no more than one is in memory."""
    parts = parts_from_bytes(files.get(path))
    while True:
        try:
            content = next(parts, None)
        except ValueError as error:
            raise files.damaged(path, error) from error
        if content is None:
            return
        yield _checked(files, table, path, content)


def check_result(files: Files, table: str, path: str) -> None:
    """Raises as `read_result`, keeping nothing."""
    for _ in read_parts(files, table, path):
        pass


def _checked(files: Files, table: str, path: str, content: pa.Table) -> pa.Table:
    try:
        content = under_schema(table, content)
    except ValueError as error:
        raise StoreError(
            f"{files.root}/{path} was written by another version of d3m_ray ({error}); name another --store, or delete "
            "the file and run the same sweep again"
        ) from error
    _check_key(files, table, path, content)
    return content


def find_damaged(files: Files, table: str, paths: Sequence[str]) -> dict[str, DamagedError]:
    """By path of a damaged result, what is wrong with it. Files are read in parallel."""

    def fault(path: str) -> DamagedError | None:
        try:
            check_result(files, table, path)
        except DamagedError as error:
            return error
        except StoreError as error:
            if not isinstance(error.__cause__, FileNotFoundError):  # else it has gone since: no fault
                raise
        return None

    with ThreadPoolExecutor(NUM_READERS) as readers:
        faults = zip(paths, readers.map(fault, paths), strict=True)
        return {path: error for path, error in faults if error is not None}


def scan_results(
    files: Files,
    table: str,
    paths: Sequence[str],
    columns: Sequence[str] | None,
    filters: pc.Expression | list[Any] | None,
) -> pa.Table:
    """These results of a table in one, with `method`. Raises as `read_result`, FileNotFoundError where one has gone."""
    spec = table_spec(table)
    partitioning = ds.partitioning(pa.schema([("method", pa.string())] if spec.by_method else []), flavor="hive")
    factory = _factory(files, table, paths, partitioning)
    # A column that a file of another version lacks comes as nulls: allowed here, and found below.
    fields = [field.with_nullable(True) for field in pa.unify_schemas([spec.schema, partitioning.schema])]
    needed = [field.name for field in spec.schema if not field.nullable]
    try:
        dataset = _of_paths(factory.finish(pa.schema(fields)), [files.at(path) for path in paths])
        content = _scan(files, table, dataset, columns, filters)
        columns_by_name = zip(content.column_names, content.columns, strict=True)  # one may have been asked for twice
        lacks = [name for name, column in columns_by_name if name in needed and column.null_count]
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError):
        _name_the_unreadable(files, table, paths)  # Arrow does not always
        raise
    if lacks:
        _name_the_unreadable(files, table, paths)
    return content


def _factory(
    files: Files, table: str, paths: Sequence[str], partitioning: ds.Partitioning
) -> ds.FileSystemDatasetFactory:
    """What finds these results, of a bucket perhaps others too: a listing tells sizes, without a request for each."""
    options = ds.FileSystemFactoryOptions(files.at(table), partitioning)
    by_listing = not files.is_local and len(paths) > MOST_ASKED_FOR
    of = fs.FileSelector(files.at(table), recursive=True) if by_listing else [files.at(path) for path in paths]
    return ds.FileSystemDatasetFactory(files.filesystem, of, CHECKED_FORMAT, options)


def _of_paths(dataset: ds.FileSystemDataset, paths: Sequence[str]) -> ds.FileSystemDataset:
    """The dataset of these files alone, in their order. Raises FileNotFoundError where it lacks one."""
    if dataset.files == list(paths):
        return dataset
    fragments = {fragment.path: fragment for fragment in dataset.get_fragments()}
    gone = next((path for path in paths if path not in fragments), None)
    if gone is not None:
        raise FileNotFoundError(gone)
    return ds.FileSystemDataset([fragments[path] for path in paths], dataset.schema, dataset.format, dataset.filesystem)


def _scan(
    files: Files,
    table: str,
    dataset: ds.Dataset,
    columns: Sequence[str] | None,
    filters: pc.Expression | list[Any] | None,
) -> pa.Table:
    spec = table_spec(table)
    always = {*spec.schema.names} - {*spec.added}
    expression = None if filters is None else pq.filters_to_expression(filters)
    names = dataset.schema.names if columns is None else list(columns)
    scanner = dataset.scanner(columns=list(dict.fromkeys([*names, spec.key])), filter=expression)
    batches = []
    for tagged in scanner.scan_batches():
        path = files.below(tagged.fragment.path)
        _check_key(files, table, path, tagged.record_batch)
        if always - {*tagged.fragment.physical_schema.names}:  # whose nulls here would pass for its own
            check_result(files, table, path)
        batches.append(tagged.record_batch)
    return pa.Table.from_batches(batches, scanner.projected_schema).select(names)


def _check_key(files: Files, table: str, path: str, content: pa.Table | pa.RecordBatch) -> None:
    """Raises DamagedError where rows are those of another result, whose file somebody has copied over this one."""
    column, key = table_spec(table).key, key_of(path)
    others = set(content[column].unique().to_pylist()) - {key, None}  # none: another version's, told elsewhere
    if others:
        raise files.damaged(path, ValueError(f"its {column} is {min(others)}, its name says otherwise"))


def _name_the_unreadable(files: Files, table: str, paths: Iterable[str]) -> None:
    """Raises StoreError where one of the files cannot be read by itself."""
    for path in paths:
        check_result(files, table, path)
