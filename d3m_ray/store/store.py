"""Reads and writes results, each by its table and key, with what produced it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from d3m_ray import __version__
from d3m_ray.store.files import Files
from d3m_ray.store.tables import table_spec, to_arrow, to_pandas

METADATA_KEY = b"d3m_ray"
RECORDED_LIBRARIES = ("torch", "transformers", "ray", "numpy", "pyarrow")
NUM_LISTINGS = 3  # a failure deleted between listing and reading: list again
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # readers skip names that begin with "." or "_"


class PlannedTrial(NamedTuple):
    """A trial that an experiment asks for."""

    method: str
    num_removed: int | None
    """None where the selection rule decides."""
    seed: int


@dataclass(frozen=True)
class Experiment:
    """What was asked for under one name: the configuration that its trials share, and every trial planned so far."""

    name: str
    configuration: Mapping[str, Any]
    plan: tuple[PlannedTrial, ...]


class Store:
    """A folder or URI (`s3://`, `gs://`, `file://`) of results; picklable.

    `str(store)` is the root, so that `pd.read_parquet(f"{store}/trials")` reads a table of a local store. Nothing is
    created before the first write. A write is atomic: readers, on other machines too, see a whole file or none, and a
    second writer of the same result is harmless. Construction asks the file system once and raises StoreError where the
    root is a file, a URI of an unknown scheme, or a place that cannot be reached.
    """

    def __init__(self, root: str | Path) -> None:
        self._files = Files(str(root))

    def __str__(self) -> str:
        return self._files.root

    def __repr__(self) -> str:
        return f"Store({self._files.root!r})"

    def has(self, table: str, key: str, method: str | None = None) -> bool:
        """Whether the result is stored."""
        return self._files.has(_result_file(table, key, method))

    def keys(self, table: str, method: str | None = None) -> set[str]:
        """The keys stored in a table, or in one method's part of it; one listing, however many there are."""
        folder = table if method is None else _folder(table, method)
        return {path.rsplit("/", 1)[-1].removesuffix(".parquet") for path in self._result_files(table, folder)}

    def write(
        self, table: str, key: str, frame: pd.DataFrame, configuration: Mapping[str, Any], method: str | None = None
    ) -> None:
        """Store one result, in place of an earlier one of the same key.

        The configuration (JSON values), the package version and the library versions go into the file's metadata.
        Raises ValueError where columns, types or keys are not those of `TABLES[table]`.
        """
        path = _result_file(table, key, method)
        content = to_arrow(table, frame)
        key_column = table_spec(table).key
        if set(content[key_column].unique().to_pylist()) - {key}:
            raise ValueError(f"every row of {path} has {key_column} {key!r}, received {frame[key_column].unique()[:3]}")
        metadata = {
            "configuration": configuration,
            "package_version": __version__,
            "library_versions": _library_versions(),
        }
        encoded = json.dumps(metadata, sort_keys=True, allow_nan=False).encode()
        sink = pa.BufferOutputStream()
        pq.write_table(content.replace_schema_metadata({METADATA_KEY: encoded}), sink, compression="zstd")
        self._files.put(path, sink.getvalue())

    def read(self, table: str, key: str, method: str | None = None) -> pd.DataFrame:
        """One result as written, with `method` as the last column where the table has methods.

        Raises StoreError where it is not stored or its file is damaged.
        """
        frame = to_pandas(table, self._read_parquet(_result_file(table, key, method)))
        if method is None:
            return frame
        # Not by assignment, which pandas warns of in a frame of as many columns as query scores have.
        return pd.concat([frame, pd.Series(method, frame.index, dtype="str", name="method")], axis=1)

    def read_all(
        self, table: str, columns: list[str] | None = None, filters: pc.Expression | list[Any] | None = None
    ) -> pd.DataFrame:
        """Every result of a table in one frame, in the order of methods and keys; empty where there is none.

        `method` comes as a str column. `filters` is an expression or pandas' list of tuples. A score column that a file
        lacks is NaN. Raises StoreError where a file is damaged.
        """
        for _ in range(NUM_LISTINGS - 1):
            try:
                return self._scan(table, columns, filters)
            except FileNotFoundError:
                continue
        return self._scan(table, columns, filters)

    def read_metadata(self, table: str, key: str, method: str | None = None) -> dict[str, Any]:
        """What produced a result: `configuration`, `package_version` and `library_versions`."""
        schema = self._read_parquet(_result_file(table, key, method), columns=[]).schema
        return json.loads(schema.metadata[METADATA_KEY])

    def delete_failure(self, trial_key: str, method: str) -> None:
        """Forget a recorded failure, if there is one: the trial has succeeded since."""
        self._files.delete(_result_file("failures", trial_key, method))

    def has_checkpoint(self, fit_key: str) -> bool:
        """Whether the weights of a fit are stored."""
        return self._files.has(_checkpoint_file(fit_key))

    def write_checkpoint(self, fit_key: str, data: bytes) -> None:
        """Store the weights of a fit, in safetensors format."""
        self._files.put(_checkpoint_file(fit_key), data)

    def read_checkpoint(self, fit_key: str) -> bytes:
        """The weights of a fit, in safetensors format. Raises StoreError where they are not stored."""
        return self._files.get(_checkpoint_file(fit_key)).to_pybytes()

    def write_experiment(
        self, name: str, configuration: Mapping[str, Any], plan: Iterable[tuple[str, int | None, int]]
    ) -> None:
        """Record a configuration, and add (method, num_removed, seed) triples to what its experiment plans.

        The configuration (JSON values) has at least the entries `dataset` and `model`; ValueError where it has not.
        Two drivers that extend one experiment in the same moment may lose one's additions to the plan, never a result.
        """
        missing = sorted({"dataset", "model"} - set(configuration))
        if missing:
            raise ValueError(f"an experiment's configuration has the entries dataset and model; missing {missing}")
        path = _experiment_file(name)
        planned = self._read_experiment(path).plan if self._files.has(path) else ()
        merged = dict.fromkeys([*planned, *(PlannedTrial(*trial) for trial in plan)])
        document = {"configuration": configuration, "plan": list(merged)}
        self._files.put(path, json.dumps(document, indent=1, allow_nan=False).encode())

    def read_experiments(self) -> dict[str, Experiment]:
        """Every experiment by name, in its order. Raises StoreError where a file is damaged."""
        paths = sorted(path for path in self._files.paths("experiments") if path.endswith(".json"))
        experiments = [self._read_experiment(path) for path in paths]
        return {experiment.name: experiment for experiment in experiments}

    def _read_experiment(self, path: str) -> Experiment:
        name = path.removeprefix("experiments/").removesuffix(".json")
        try:
            document = json.loads(self._files.get(path).to_pybytes())
            plan = tuple(PlannedTrial(*trial) for trial in document["plan"])
            return Experiment(name, document["configuration"], plan)
        except (ValueError, TypeError, KeyError) as error:
            raise self._files.damaged(path, error) from error

    def _result_files(self, table: str, folder: str) -> list[str]:
        depth = 2 if table_spec(table).by_method else 1
        paths = (path for path in self._files.paths(folder) if path.endswith(".parquet"))
        return sorted(path for path in paths if path.count("/") == depth)

    def _read_parquet(self, path: str, columns: list[str] | None = None) -> pa.Table:
        data = self._files.get(path)
        try:
            return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise self._files.damaged(path, error) from error

    def _scan(self, table: str, columns: list[str] | None, filters: pc.Expression | list[Any] | None) -> pd.DataFrame:
        spec = table_spec(table)
        paths = self._result_files(table, table)
        partitioning = ds.partitioning(pa.schema([("method", pa.string())] if spec.by_method else []), flavor="hive")
        options = ds.FileSystemFactoryOptions(self._files.at(table), partitioning)
        located = [self._files.at(path) for path in paths]
        factory = ds.FileSystemDatasetFactory(self._files.filesystem, located, ds.ParquetFileFormat(), options)
        schema = pa.unify_schemas([spec.schema, partitioning.schema])
        try:
            if spec.has_scores and paths:
                schema = pa.unify_schemas([schema, factory.inspect(fragments=None).remove_metadata()])
            expression = None if filters is None else pq.filters_to_expression(filters)
            schema = pa.schema([field.with_nullable(True) for field in schema])  # scores that other files lack
            content = factory.finish(schema).to_table(columns=columns, filter=expression)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError):
            for path in paths:  # Arrow does not always name the file: find the one that cannot be read by itself
                self._read_parquet(path)
            raise
        return to_pandas(table, content)


def _folder(table: str, method: str | None) -> str:
    if table_spec(table).by_method != (method is not None):
        rule = "has a method for each result" if table_spec(table).by_method else "has no methods"
        raise ValueError(f"{table} {rule}; received method {method!r}")
    return table if method is None else f"{table}/method={_checked(method)}"


def _result_file(table: str, key: str, method: str | None) -> str:
    return f"{_folder(table, method)}/{_checked(key)}.parquet"


def _checkpoint_file(fit_key: str) -> str:
    return f"checkpoints/{_checked(fit_key)}.safetensors"


def _experiment_file(name: str) -> str:
    return f"experiments/{_checked(name)}.json"


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"a name is letters, digits, '.', '_' and '-', a letter or digit first; received {name!r}")
    return name


@cache
def _library_versions() -> dict[str, str]:
    return {library: version(library) for library in RECORDED_LIBRARIES}
