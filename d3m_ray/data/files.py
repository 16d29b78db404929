"""Which files of a folder hold which split, and what to say of a folder that holds something else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from d3m_ray.data.checks import DataError
from d3m_ray.data.tables import READERS, table_stem
from d3m_ray.records import SPLIT_NAMES

SPLIT_STEMS = {"train": "train", "val": "val", "validation": "val", "valid": "val", "dev": "val", "test": "test"}
"""The names of files, and the values of a split column, that mean a split."""
SHARD = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})(?:-[0-9a-f]{8,16})?")  # a part of a split on the hub, now and once
NO_DATA = {f"{stem}.json" for stem in ("config", "dataset_dict", "dataset_info", "dataset_infos", "state")}
"""Files that stand beside a corpus and end like tables."""
REMOVED_SUFFIX = ".removed"
"""What the name of a table of removed rows, which `export` writes beside a corpus, has before its ending."""
FORMATS = "CSV, TSV, Parquet or JSON lines"
MAX_FILES = 8  # that an error lists


def table_files(folder: Path) -> list[Path]:
    """The tables in a folder, by name; raises DataError where it cannot be listed."""
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}); check that you may read it") from error
    return [path for path in paths if table_stem(path) is not None and path.is_file() and not _is_no_data(path)]


def find_splits(source: Path) -> Mapping[str, Sequence[Path]]:
    """The files of each split, or the one file that holds them all as that of train.

    Raises DataError where there is no table, a split has two files, it is not clear which of several is meant, or the
    folder has a table that would not be read: its split would be cut off train without a word.
    """
    if source.is_file():
        if table_stem(source) is None:
            raise DataError(f"{source}: a table ends in {', '.join(READERS)}; rename it, or write it as one of these")
        return {"train": [source]}
    if not source.is_dir():
        raise DataError(f"--data is a folder or a file of {FORMATS}, received {str(source)!r}, which is neither")
    files = table_files(source)
    splits: dict[str, list[Path]] = {}
    for path in files:
        split = _split_of_stem(table_stem(path) or "")
        if split is not None:
            splits.setdefault(split, []).append(path)
    if splits:
        for split, paths in splits.items():
            _check_one_file(source, split, paths)
        _check_all_read(source, splits)
        return {split: splits[split] for split in SPLIT_NAMES if split in splits}
    if len(files) != 1:
        raise DataError(
            f"{source}: holds train, val and test as {FORMATS}, or one such file; it holds {shown_files(source)}: "
            + ("name one of them, --data FOLDER/FILE" if files else "add a table, or name another folder")
        )
    _check_all_read(source, {"train": files})
    return {"train": files}


def shown_files(folder: Path) -> str:
    """The first names in a folder, for an error that says what it holds."""
    names = [f"{path.name}/" if path.is_dir() else path.name for path in sorted(folder.iterdir())]
    more = len(names) - MAX_FILES
    return (", ".join(names[:MAX_FILES]) or "nothing") + (f" and {more:,} more" if more > 0 else "")


def check_is_corpus(folder: Path, corpus: str, found: Mapping[str, bool], rule: str) -> None:
    """Raises DataError where files of a corpus in its original format are missing: what is there, and who reads it.

    `found` says of each needed file whether it is there.
    """
    missing = [name for name, is_there in found.items() if not is_there]
    if not missing:
        return
    tables = table_files(folder)
    if tables and not any(found.values()):
        raise DataError(
            f"{folder}: holds no file of {corpus}, it holds {shown_files(folder)}; read that with d3m-ray run own "
            f"--data {folder} ({FORMATS}, any columns and splits)"
        )
    raise DataError(
        f"{folder}: {rule}; {', '.join(missing)} missing, it holds {shown_files(folder)}: add it, name a folder of "
        "train.csv, val.csv and test.csv, or leave out --data"
    )


def _is_no_data(path: Path) -> bool:
    stem = (table_stem(path) or "").lower()
    return path.name.lower() in NO_DATA or stem in ("readme", "license") or stem.endswith(REMOVED_SUFFIX)


def _split_of_stem(stem: str) -> str | None:
    shard = SHARD.fullmatch(stem)
    return SPLIT_STEMS.get((shard[1] if shard else stem).lower())


def _check_all_read(folder: Path, splits: Mapping[str, Sequence[Path]]) -> None:
    """Raises DataError at other tables, here or one level below, and at what is called like a split that has no file.

    `splits` has the files that are read.
    """
    read = {path for paths in splits.values() for path in paths}
    unread = [path for path in table_files(folder) if path not in read]
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path in read or path in unread:
            continue
        inside = table_files(path) if path.is_dir() else []
        split = _split_of_stem(path.name.partition(".")[0])
        is_missing_split = split is not None and split not in splits
        unread += inside or [path] * is_missing_split
    if unread:
        names = [str(path.relative_to(folder)) for path in unread]
        more = f" and {len(names) - MAX_FILES:,} more" if len(names) > MAX_FILES else ""
        raise DataError(
            f"{folder}: every table of a folder is read, as train, val or test; {', '.join(names[:MAX_FILES])}{more} "
            f"would not be, beside {', '.join(sorted(path.name for path in read)[:MAX_FILES])}: rename, move, or name "
            "one file with --data"
        )


def _check_one_file(folder: Path, split: str, paths: Sequence[Path]) -> None:
    """One file, or all the shards of one."""
    if len(paths) == 1 and not SHARD.fullmatch(table_stem(paths[0]) or ""):
        return
    shards = [SHARD.fullmatch(table_stem(path) or "") for path in paths]
    whole = {(shard[1], int(shard[3])) for shard in shards if shard}
    numbers = [int(shard[2]) for shard in shards if shard]
    if len(whole) == 1 and None not in shards and numbers == list(range(next(iter(whole))[1])):
        return
    raise DataError(
        f"{folder}: a split has one file, or all of its parts; {split} has {', '.join(path.name for path in paths)}: "
        "keep one, or add the missing part"
    )
