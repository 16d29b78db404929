"""Every file of a store held against what was written: what is damaged, what is missing, and what recomputes it."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import pyarrow as pa
from pyarrow import fs

from d3m_ray.store import records
from d3m_ray.store.checkpoints import CHECKPOINTS, checkpoint_file, checkpoint_from_bytes
from d3m_ray.store.compacted import COMPACTED, check_copy
from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.store.experiments import Experiment, experiment_from_json
from d3m_ray.store.files import Files
from d3m_ray.store.preparations import preparation_from_json
from d3m_ray.store.results import (
    NUM_LISTINGS,
    NUM_READERS,
    check_result,
    is_name,
    method_of,
    result_file,
    results_among,
    scan_results,
)
from d3m_ray.store.tables import TABLES

Read = Callable[[str], object]
Parse = Callable[[str, pa.Buffer], object]

NUM_LARGE_READERS = 2  # of files at once, of which each may be gigabytes
LARGE = ("query_scores", "scores", CHECKPOINTS, COMPACTED)

RECOMPUTED: Mapping[str, str] = {
    "fits": "trains the fit again",
    "trials": "records the trial again from its fit",
    "removals": "records its trial again from its fit",
    "examples": "stores the corpus again",
    "alignments": "makes the alignment again from its scores",
    "scores": "makes the scores again, from the base models' checkpoints or from the scores of queries",
    "query_scores": "makes the scores again, from the base models' checkpoints",
    "lds": "measures the LDS again",
    "failures": "tries the trial again",
    CHECKPOINTS: "trains the fit again where scores are to be made with it",
    records.EXPERIMENTS: "writes the record again, without trials that only earlier sweeps planned",
    records.PREPARATIONS: "prepares the model again",
    records.LOGS: "needs it for nothing: it is no result",
    COMPACTED: "needs it for nothing: d3m-ray compact writes it again",
}
"""By table or folder, what the same sweep, run again, does where a file of it is gone."""


@dataclass(frozen=True)
class Fault:
    """One file that is not as it should be."""

    path: str
    """Below the root of the store."""
    reason: str
    """What is wrong with it, or of a missing one, what needs it."""
    experiments: tuple[str, ...] = ()
    """Those known to need it, by name."""

    @property
    def recomputed(self) -> str:
        """What the same sweep, run again, does when it is gone."""
        return RECOMPUTED[self.path.partition("/")[0]]


@dataclass(frozen=True)
class StoreCheck:
    """What was found when every file of a store was read."""

    num_files: int
    """Files that were read."""
    damaged: tuple[Fault, ...] = ()
    """No longer what was written."""
    missing: tuple[Fault, ...] = ()
    """Not there, though stored results rest on them."""
    foreign: tuple[Fault, ...] = ()
    """Written by another version, whose columns this one cannot read: never deleted."""
    num_deleted: int = 0
    """Of the damaged files, those that were deleted."""

    @property
    def is_whole(self) -> bool:
        """Whether every file is what was written, and what stored results rest on is there."""
        return not (self.damaged or self.missing or self.foreign)

    @property
    def experiments(self) -> tuple[str, ...]:
        """The experiments known to lack something, by name: their sweeps recompute it."""
        return tuple(sorted({name for fault in (*self.damaged, *self.missing) for name in fault.experiments}))


def check_files(files: Files, repair: bool) -> StoreCheck:
    """Read every file; with `repair`, delete those that are damaged. Raises StoreError where the store cannot be read.

    A file that changed since it was read stays: a sweep that runs beside has written it again.
    """
    versions = {path: version for folder in RECOMPUTED for path, version in files.versions(folder).items()}
    damaged: dict[str, str] = {}
    foreign: dict[str, str] = {}
    num_files = 0
    for folder, paths, read in _readers(files, versions):
        num_files += len(paths)
        for path, error in _faults(files, paths, read, NUM_LARGE_READERS if folder in LARGE else NUM_READERS):
            (damaged if isinstance(error, DamagedError) else foreign)[path] = _reason(error, f"{files.root}/{path}")
    foreign |= dict.fromkeys(_folders_in_the_way(files), "a folder lies in its place: move it away")
    uses = _uses(files, [path for path in versions if path not in damaged and path not in foreign], damaged)
    lacking = {path: of for path, of in uses.items() if path not in versions and any(of.values())}
    written_since = files.versions_of(lacking)  # by a sweep that runs beside: a trial was listed after its fit was not
    lacking = {path: of for path, of in lacking.items() if path not in written_since and path not in foreign}
    found = StoreCheck(
        num_files,
        damaged=tuple(Fault(path, reason, tuple(sorted(uses.get(path, ())))) for path, reason in damaged.items()),
        missing=tuple(Fault(path, "stored results rest on it", tuple(sorted(of))) for path, of in lacking.items()),
        foreign=tuple(Fault(path, reason) for path, reason in foreign.items()),
    )
    return replace(found, num_deleted=_delete_unchanged(files, damaged, versions)) if repair else found


def _folders_in_the_way(files: Files) -> Iterator[str]:
    """Where there is a folder in the place of a file, which a sweep could not write."""
    if files.is_local:
        for folder in RECOMPUTED:
            found = files.filesystem.get_file_info(
                fs.FileSelector(files.at(folder), recursive=True, allow_not_found=True)
            )
            endings = {".parquet", *(ending for ending, _ in DOCUMENTS.values())}
            yield from (
                files.below(info.path)
                for info in found
                if info.type == fs.FileType.Directory and f".{info.extension}" in endings
            )


def _delete_unchanged(files: Files, paths: Collection[str], versions: Mapping[str, str]) -> int:
    """Delete those of the files that are still the same; how many."""
    # Of a listing as before: some buckets tell parts of a second there alone.
    now = {
        path: of for folder in {path.partition("/")[0] for path in paths} for path, of in files.versions(folder).items()
    }
    unchanged = [path for path in paths if now.get(path) == versions[path]]
    for path in unchanged:
        files.delete(path)
    return len(unchanged)


# --- reading each file ------------------------------------------------------------------------------------------------


def _readers(files: Files, paths: Iterable[str]) -> Iterator[tuple[str, Sequence[str], Read]]:
    """Each folder, its files among the paths, and what raises StoreError at one that is not as it should be."""
    within: dict[str, list[str]] = {folder: [] for folder in RECOMPUTED}
    for path in sorted(paths):
        within[path.partition("/")[0]].append(path)
    for table in TABLES:
        yield table, results_among(within[table], table), partial(check_result, files, table)
    for folder, (ending, parse) in DOCUMENTS.items():
        named = [path for path in within[folder] if path.endswith(ending) and is_name(_stem(path))]
        yield folder, named, partial(_parse, files, parse)


def _parse(files: Files, parse: Parse, path: str) -> object:
    return files.read(path, partial(parse, _stem(path)))


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0]


def _check_log(name: str, data: pa.Buffer) -> None:
    """Raises ValueError where a line is no JSON."""
    for line in data.to_pybytes().splitlines():
        try:
            json.loads(line)
        except RecursionError as error:
            raise ValueError("it is nested too deep for a log") from error


DOCUMENTS: Mapping[str, tuple[str, Parse]] = {
    CHECKPOINTS: (".safetensors", lambda name, data: checkpoint_from_bytes(data, name)),
    records.EXPERIMENTS: (".json", experiment_from_json),
    records.PREPARATIONS: (".json", preparation_from_json),
    records.LOGS: (".jsonl", _check_log),
    COMPACTED: (".parquet", check_copy),
}
"""By folder beside the tables, how its files end, and what raises ValueError at one that is damaged."""


def _faults(files: Files, paths: Sequence[str], read: Read, num_readers: int) -> Iterator[tuple[str, StoreError]]:
    """The files that are not as they should be. Raises StoreError where a bucket does not answer: no file's fault."""

    def fault(path: str) -> StoreError | None:
        try:
            read(path)
        except StoreError as error:
            cause = error.__cause__
            if isinstance(cause, FileNotFoundError):  # forgotten since by a sweep that runs beside
                return None
            if isinstance(cause, OSError) and not files.is_local:
                raise
            return error
        return None

    with ThreadPoolExecutor(num_readers) as readers:
        for path, error in zip(paths, readers.map(fault, paths), strict=True):
            if error is not None:
                yield path, error


def _reason(error: StoreError, place: str) -> str:
    """What is wrong, without the file's place, which may have brackets of its own, and without what to do."""
    told = str(error.args[0]).removeprefix(place)
    return told.partition(" (")[2].rpartition(")")[0] or told


# --- what rests on which file -----------------------------------------------------------------------------------------

Uses = dict[str, dict[str, bool]]
"""By path, the experiments that name it, each with whether a result that it has stored rests on the file."""


def _uses(files: Files, whole: Sequence[str], damaged: Collection[str]) -> Uses:
    """What the whole trials and records name; a damaged trial is of each whose plan lacks one of its method."""
    uses: Uses = {}

    def name(path: str, experiment: str, rests: bool = True) -> None:
        of_path = uses.setdefault(path, {})
        of_path[experiment] = of_path.get(experiment, False) or rests

    trials = _trials(files, whole)
    removing: dict[str, set[str]] = {str(experiment): set() for experiment in trials["experiment"].unique()}
    num_stored = Counter(zip(trials["experiment"], trials["method"], strict=True))
    for trial_key, fit_key, experiment, method, num_removed in trials.itertuples(index=False, name=None):
        name(result_file("fits", fit_key, None), experiment)
        if num_removed > 0:
            removing[experiment].add(method)
            name(result_file("removals", trial_key, method), experiment)
        if is_name(experiment):
            name(records.experiment_file(experiment), experiment)
    for experiment, record in _experiments(files, whole):
        for path, rests in _named_by(record, experiment in removing, removing.get(experiment, set())):
            name(path, experiment, rests)
        lacking = Counter(planned.method for planned in record.plan)
        for path in results_among([path for path in damaged if path.startswith("trials/")], "trials"):
            method = method_of(path)
            if lacking[method] > num_stored[experiment, method]:
                name(path, experiment)
    return uses


def _trials(files: Files, whole: Sequence[str]) -> pd.DataFrame:
    """What each whole trial is of, a row each; without those that a sweep that runs beside forgot since."""
    paths = results_among([path for path in whole if path.startswith("trials/")], "trials")
    columns = ["trial_key", "fit_key", "experiment", "method", "num_removed"]
    for _ in range(NUM_LISTINGS - 1):
        try:
            return scan_results(files, "trials", paths, columns, None).to_pandas().drop_duplicates()
        except FileNotFoundError:
            left = files.versions("trials")
            paths = [path for path in paths if path in left]
    return scan_results(files, "trials", paths, columns, None).to_pandas().drop_duplicates()


def _experiments(files: Files, whole: Sequence[str]) -> Iterator[tuple[str, Experiment]]:
    """The whole records by name."""
    whole_ones = {*whole}
    for name in records.experiment_names(files):
        if records.experiment_file(name) in whole_ones and (record := records.read_experiment(files, name)) is not None:
            yield name, record


def _named_by(record: Experiment, has_trials: bool, removing: Collection[str]) -> Iterator[tuple[str, bool]]:
    """The files that a record names, with whether a stored trial rests on it, given the arms that removed something."""
    aligned = {name for name in record.keys.get("alignments", {}) if name in removing}
    for table, keys in record.keys.items():
        if table not in TABLES:  # of a later version
            continue
        by_method = TABLES[table].by_method
        for name, key in keys.items():
            if by_method and not is_name(name):
                continue  # nothing is stored under it
            path = result_file(table, key, name if by_method else None)
            if table == "query_scores":
                yield path, any(of.startswith(f"{name}_") for of in aligned)
            else:
                yield path, name in aligned if by_method else bool(aligned)
            if table == "fits":
                yield checkpoint_file(key), False
    data_hash = record.configuration.get("data_hash")
    if data_hash is not None:
        yield result_file("examples", data_hash, None), has_trials
