"""Reads and writes results, each by its table and key, with what produced it."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from d3m_ray.store import records
from d3m_ray.store.check import StoreCheck, check_files
from d3m_ray.store.checkpoints import checkpoint_file, checkpoint_from_bytes, checkpoint_to_bytes
from d3m_ray.store.compacted import COMPACTABLE, Compacted, Compaction, compact_table
from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.store.experiments import Experiment, PlannedTrial
from d3m_ray.store.files import UNFINISHED, Files
from d3m_ray.store.format import read_format, record_format
from d3m_ray.store.parquet import metadata_from_bytes, parts_to_bytes, table_to_bytes
from d3m_ray.store.preparations import Preparation
from d3m_ray.store.provenance import Provenance
from d3m_ray.store.results import (
    MOST_ASKED_FOR,
    NUM_LISTINGS,
    key_of,
    read_parts,
    read_result,
    result_file,
    result_files,
    results_among,
    table_folder,
)
from d3m_ray.store.score_rows import Names, scores_from_rows, scores_to_rows
from d3m_ray.store.tables import TABLES, table_spec, to_arrow, to_pandas
from d3m_ray.store.wholeness import Wholeness
from d3m_ray.waiting import Say


class Store:
    """A folder or URI (`s3://`, `gs://`, `file://`) of results; picklable.

    `str(store)` is the root, so that `pd.read_parquet(f"{store}/trials")` reads a table of a local store. Nothing is
    created before the first write. A write is atomic: readers, on other machines too, see a whole file or none, and a
    second writer of the same result is harmless. Construction looks at the root and the store's format, once. It raises
    StoreError where the root is a file, a URI of an unknown scheme, or a place that cannot be reached, and where the
    format is one that only a later version knows.
    """

    def __init__(self, root: str | Path) -> None:
        self._files = Files(str(root))
        self._format = read_format(self._files)
        self._wholeness = Wholeness(self._files)
        self._compacted = Compacted(self._files)

    def __str__(self) -> str:
        return self._files.root

    def __repr__(self) -> str:
        return f"Store({self._files.root!r})"

    def reader(self) -> "Store":
        """The same store for what only reads it: what is damaged is said and left where it is, a write is no use.

        What either finds whole, both know.
        """
        same = copy.copy(self)
        same._files = self._files.reader()
        same._wholeness = self._wholeness.of_reader(same._files)
        return same

    def has(self, table: str, key: str, method: str | None = None) -> bool:
        """Whether the result is stored."""
        return self._files.has(result_file(table, key, method))

    def file_of(self, table: str, key: str, method: str | None = None) -> str:
        """Where a result lies, or would: the path or URI to name to a person."""
        return f"{self}/{result_file(table, key, method)}"

    def keys(self, table: str, method: str | None = None) -> set[str]:
        """The keys stored in a table, or in one method's part of it; one listing, however many there are."""
        folder = table if method is None else table_folder(table, method)
        return {key_of(path) for path in result_files(self._files, table, folder)}

    def write(
        self, table: str, key: str, frame: pd.DataFrame, configuration: Mapping[str, Any], method: str | None = None
    ) -> None:
        """Store one result, in place of an earlier one of the same key.

        The configuration (JSON values) and the versions of the package and its libraries go into the file's metadata.
        Raises ValueError where columns, types or keys are not those of `TABLES[table]`.
        """
        path = result_file(table, key, method)
        content = to_arrow(table, frame)
        key_column = table_spec(table).key
        if set(content[key_column].unique().to_pylist()) - {key}:
            raise ValueError(f"every row of {path} has {key_column} {key!r}, received {frame[key_column].unique()[:3]}")
        self._files.put(path, table_to_bytes(content, configuration))

    def write_scores(
        self,
        table: str,
        key: str,
        scores: np.ndarray,
        example_ids: Names,
        column_names: Names,
        configuration: Mapping[str, Any],
        method: str,
    ) -> None:
        """Store scores [N, S] for S query sets (`scores`) or queries (`query_scores`), without a frame of N S rows."""
        parts = scores_to_rows(table, key, scores, example_ids, column_names)
        content = parts_to_bytes(table_spec(table).schema, parts, configuration)
        self._files.put(result_file(table, key, method), content)

    def read(self, table: str, key: str, method: str | None = None) -> pd.DataFrame:
        """One result as written, with `method` as the last column where the table has methods.

        Raises StoreError where it is not stored or its file is damaged.
        """
        frame = to_pandas(table, read_result(self._files, table, result_file(table, key, method)))
        return frame if method is None else frame.assign(method=method)

    def read_scores(self, table: str, key: str, example_ids: Names, column_names: Names, method: str) -> np.ndarray:
        """[N, S] float32 scores that `write_scores` stored for these examples and names. Raises as `read`."""
        path = result_file(table, key, method)
        try:
            return scores_from_rows(read_parts(self._files, table, path), example_ids, column_names)
        except ValueError as error:
            raise self._files.damaged(path, error) from error

    def read_all(
        self,
        table: str,
        columns: list[str] | None = None,
        filters: pc.Expression | list[Any] | None = None,
        say: Say | None = None,
        keys: Mapping[str, str | None] | None = None,
    ) -> pd.DataFrame:
        """Every result of a table in one frame, in the order of methods and keys; empty where there is none.

        `method` comes as a str column. `filters` is an expression or pandas' list of tuples. With `keys`, given with
        their methods, only those that are stored of these results, whose files alone are read. Raises StoreError where
        a file is damaged, or lacks a column; with `say`, damaged files are told and left out.
        """
        for _ in range(NUM_LISTINGS - 1):
            with suppress(FileNotFoundError):
                return self._read_all(table, columns, filters, keys, say)
        try:
            return self._read_all(table, columns, filters, keys, say)
        except FileNotFoundError as error:
            raise StoreError(f"files of {self}/{table} go faster than they can be read: ask again") from error

    def versions(self, table: str, keys: Mapping[str, str | None]) -> dict[str, str]:
        """By path, those of these results that are stored, with their sizes and times: the same while none changes."""
        paths = [result_file(table, key, method) for key, method in keys.items()]
        if self._files.is_local or len(paths) <= MOST_ASKED_FOR:
            return self._files.versions_of(paths)
        stored = self._files.versions(table)
        return {path: stored[path] for path in paths if path in stored}

    def read_metadata(self, table: str, key: str, method: str | None = None) -> dict[str, Any]:
        """What produced a result: `configuration`, `package_version`, `commit` and `library_versions`."""
        return self._files.read(result_file(table, key, method), metadata_from_bytes)

    def has_whole(self, table: str, key: str, method: str | None, say: Say) -> bool:
        """Whether the result is stored and can be read. A damaged file is deleted, and said: to be recomputed."""
        return self._wholeness.holds_result(table, result_file(table, key, method), say)

    def whole_keys(self, table: str, methods: Mapping[str, str | None], say: Say) -> set[str]:
        """Those of the keys, given with their methods, that `has_whole` holds for; many files are read in parallel."""
        paths = {result_file(table, key, method): key for key, method in methods.items()}
        return {paths[path] for path in self._wholeness.whole_results(table, paths, say)}

    def has_whole_checkpoint(self, fit_key: str, say: Say) -> bool:
        """As `has_whole`, for the weights of a fit."""
        return self._wholeness.holds(checkpoint_file(fit_key), lambda: self.read_checkpoint(fit_key), say)

    def delete_damaged(self, table: str, say: Say) -> None:
        """Delete, and say, every damaged file of a table. A table without any is read once, in parallel."""
        self._wholeness.discard_damaged(table, say)

    def check(self, repair: bool = False) -> StoreCheck:
        """Read every file and say what is damaged or missing; with `repair`, delete what is damaged.

        Raises StoreError where there is no store, or it cannot be read or, to repair it, written.
        """
        found = check_files(self._files, repair)
        if found.num_files == 0:
            raise self.without_experiment()
        return found

    def compact(self, say: Say) -> list[Compaction]:
        """Copy the rows of each table of many small files into one file, which readers of the table then open instead.

        No result moves or goes. Raises StoreError where the store is not there, or cannot be read or written.
        """
        done = [compact_table(self._files, table, say) for table in COMPACTABLE if self.keys(table)]
        if not done:
            raise self.without_experiment()
        return done

    def delete_result(self, table: str, key: str, method: str | None = None) -> None:
        """Forget a result, if it is stored: something that it takes is not."""
        self._files.delete(result_file(table, key, method))

    def delete_failure(self, trial_key: str, method: str) -> None:
        """Forget a recorded failure, if there is one: the trial has succeeded since."""
        self.delete_result("failures", trial_key, method)

    def has_checkpoint(self, fit_key: str) -> bool:
        """Whether the weights of a fit are stored."""
        return self._files.has(checkpoint_file(fit_key))

    def write_checkpoint(self, fit_key: str, weights: Mapping[str, np.ndarray]) -> None:
        """Store the weights of a fit, by name, in safetensors format."""
        self._files.put(checkpoint_file(fit_key), checkpoint_to_bytes(weights, fit_key))

    def read_checkpoint(self, fit_key: str) -> dict[str, np.ndarray]:
        """The weights of a fit by name. Raises StoreError where they are not stored or their file is damaged."""
        return self._files.read(checkpoint_file(fit_key), lambda data: checkpoint_from_bytes(data, fit_key))

    def check_writable(self) -> None:
        """Write a file and delete it again: asked at the start of a run. Raises StoreError where that is refused."""
        self._files.check_writable((*TABLES, "checkpoints", "experiments", "preparations"))

    @contextmanager
    def probe(self) -> Iterator[str]:
        """Hold a file of a name that no other store has while the block runs; another machine asks if it `sees` it."""
        name = f"{UNFINISHED}/{uuid4().hex}"
        self._files.put(name, b"probe")
        try:
            yield name
        finally:
            self._files.delete(name)

    def sees(self, probe: str) -> bool:
        """Whether a probe of the store that another machine means is in this one."""
        return self._files.has(probe)

    def write_experiment(
        self,
        name: str,
        configuration: Mapping[str, Any],
        plan: Iterable[tuple[str, int | None, int]],
        keys: Mapping[str, Mapping[str, str]] | None = None,
        provenance: Provenance | None = None,
    ) -> None:
        """Record a configuration, and add (method, num_removed, seed) triples and `keys` to those of its experiment.

        The configuration (JSON values) has at least the entries `dataset` and `model`; ValueError where it has not.
        `provenance` stands in the place of an earlier one.
        Every sweep begins with it, so that it records the store's format too.
        Caveats go: they were about a smaller plan. Two drivers that extend one experiment in the same moment may lose
        one's additions to the plan, never a result.
        """
        self._format = record_format(self._files, self._format)
        planned = tuple(PlannedTrial(*trial) for trial in plan)
        asked = Experiment(name, configuration, planned, keys or {}, records.now(), provenance=provenance or {})
        records.write_experiment(self._files, asked)

    def write_caveats(self, name: str, caveats: Iterable[str]) -> None:
        """Set the caveats of a recorded experiment. Raises StoreError where there is no record."""
        records.write_caveats(self._files, name, caveats)

    def write_preparation(self, key: str, preparation: Preparation) -> None:
        """Keep what preparing a model came to, under the hash of all that it follows from."""
        records.write_preparation(self._files, key, preparation)

    def read_preparation(self, key: str) -> Preparation | None:
        """What was kept under this key; None where there is nothing, or it is damaged."""
        return records.read_preparation(self._files, key)

    def without_experiment(self) -> StoreError:
        """What to raise where a result is asked of a store that has none: perhaps a slip in its name."""
        lacks = "holds no experiment" if self._files.is_there() else "is not there"
        return StoreError(f"the store {self} {lacks}; name what a run was given as --store")

    def write_log(self, experiment: str, run: str, lines: bytes) -> None:
        """Put the JSON lines of a run of this name, in the place of those that are there."""
        records.write_log(self._files, experiment, run, lines)

    def read_experiment(self, name: str) -> Experiment | None:
        """The experiment of this name, if there is one. Raises StoreError where its file is damaged."""
        return records.read_experiment(self._files, name)

    def read_experiments(self, say: Say | None = None) -> dict[str, Experiment]:
        """Every experiment by name, in its order.

        Raises StoreError where a file is damaged; with `say`, such files are told and left out.
        """
        return records.read_experiments(self._files, say)

    def _read_all(
        self,
        table: str,
        columns: list[str] | None,
        filters: pc.Expression | list[Any] | None,
        keys: Mapping[str, str | None] | None,
        say: Say | None,
    ) -> pd.DataFrame:
        versions = self._versions(table, keys)
        try:
            content = self._compacted.scan(table, versions, columns, filters)
        except DamagedError:
            if say is None:
                raise
            content, faults = self._compacted.scan_whole(table, versions, columns, filters)
            for error in faults.values():
                say(str(error))
        return to_pandas(table, content)

    def _versions(self, table: str, keys: Mapping[str, str | None] | None) -> dict[str, str]:
        """By path, with size and time, a table's results, or those of these keys that are stored."""
        if keys is not None:
            return self.versions(table, keys)
        versions = self._files.versions(table)
        return {path: versions[path] for path in results_among(versions, table)}
