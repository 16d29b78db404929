"""Whole files below one root, local or remote: a reader sees all of a file or none of it."""

import copy
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

from d3m_ray.meter import store_call
from d3m_ray.rules import without_secret
from d3m_ray.store.errors import DamagedError, StoreError, UnusableError, refused
from d3m_ray.store.reachability import reason_out_of_reach
from d3m_ray.store.remote import bounded, open_remote

URI_SCHEMES = ("file", "s3", "gs")
_LIKE_A_URI = re.compile(r"(file|s3|gs):|[A-Za-z][\w+.-]+:/")  # of a text that has no "://"
_LIKE_A_PARTITION = re.compile(r"[A-Za-z_]\w*=")
UNFINISHED_PREFIXES = (".", "_")  # pyarrow's and pandas' dataset readers skip such names too
UNFINISHED = ".unfinished"  # a folder of its own: polars reads no table that has a file of another ending in it
MEMORY_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")  # of this machine
PROBE = bytes(1 << 20)  # a mebibyte: a disk with no room for it is as good as full

Parsed = TypeVar("Parsed")


class Files:
    """The files below a root, by paths relative to it.

    Picklable. Construction asks the file system once whether the root can be used and raises StoreError where it is a
    file, a URI of an unknown scheme, or a place that cannot be reached. Nothing is created before the first `put`.
    Whatever the file system refuses later is a StoreError too, in one line.
    """

    def __init__(self, root: str) -> None:
        self.filesystem, self._base, self.root = _open_root(root)
        self.only_reads = False
        self.landmark: str | None = None
        """A file that is there as long as a local root is the one that was written to: without it nothing is put."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "filesystem": bounded(state["filesystem"])}

    def reader(self) -> "Files":
        """The same files for what only reads them: RuntimeError where it would write or delete one."""
        same = copy.copy(self)
        same.only_reads = True
        return same

    def at(self, path: str) -> str:
        """The path within the file system."""
        return f"{self._base}/{path}"

    def below(self, place: str) -> str:
        """The path relative to the root, of one within the file system."""
        return place.removeprefix(f"{self._base}/")

    def paths(self, folder: str) -> Iterator[str]:
        """Paths of the finished files below a folder, none where the folder is absent."""
        yield from self.versions(folder)

    def versions(self, folder: str) -> dict[str, str]:
        """As `paths`, each with its size and the time of its last change: the same while nobody writes to the file."""
        selector = fs.FileSelector(self.at(folder), recursive=True, allow_not_found=True)
        return self._versions(selector)

    def versions_of(self, paths: Iterable[str]) -> dict[str, str]:
        """As `versions`, of those of the paths where there is a file; nothing else is listed."""
        return self._versions([self.at(path) for path in paths])

    @store_call
    def _versions(self, which: fs.FileSelector | list[str]) -> dict[str, str]:
        with refused(f"the store {self.root}", "listed"):
            try:
                found = self.filesystem.get_file_info(which)
            except NotADirectoryError as error:
                place = which.base_dir if isinstance(which, fs.FileSelector) else self.root
                raise StoreError(f"the store needs a folder, {place} is a file; move it away") from error
        finished = (info for info in found if info.is_file and not info.base_name.startswith(UNFINISHED_PREFIXES))
        return {self.below(info.path): f"{info.size} bytes, {info.mtime_ns}" for info in finished}

    @property
    def is_local(self) -> bool:
        """Whether they are files of this machine's own file system."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def is_there(self) -> bool:
        """Whether the root is a folder that exists. What is no local folder is taken to: a bucket has no folders."""
        return not self.is_local or Path(self._base).is_dir()

    def has(self, path: str) -> bool:
        with refused(f"the store {self.root}", "read"):
            return self.filesystem.get_file_info(self.at(path)).is_file

    @store_call
    def put(self, path: str, data: bytes | pa.Buffer) -> None:
        """Write a whole file, in place of an earlier one; in a bucket, one of less than 5 MB in one request."""
        self._check_may_write()
        with refused(f"the store {self.root}", "written", self.is_local):
            self._check_is_still_there()
            if self.is_local:
                try:
                    _put_local(Path(self.at(path)), data, Path(self._base) / UNFINISHED)
                except IsADirectoryError as error:
                    raise StoreError(f"a result is a file, {self.root}/{path} is a folder; move it away") from error
                return
            # An object appears when its upload completes. The data is whole by now: an error cannot complete a part.
            with self.filesystem.open_output_stream(self.at(path)) as stream:
                stream.write(data)

    @store_call
    def get(self, path: str) -> pa.Buffer:
        """The content of a file. Raises StoreError where there is none."""
        with refused(f"{self.root}/{path}", "read"):
            try:
                with self.filesystem.open_input_file(self.at(path)) as file:
                    if file.size() > MEMORY_BYTES:
                        raise MemoryError  # a system that promises more than it has would end the process instead
                    return file.read_buffer()
            except FileNotFoundError as error:
                self._check_is_still_there()
                raise StoreError(f"{self.root} holds no {path}; run the sweep that makes it") from error
            except MemoryError as error:
                raise self._too_large(path) from error

    def read(self, path: str, parse: Callable[[pa.Buffer], Parsed]) -> Parsed:
        """What `parse` makes of a file. Raises DamagedError where that raises ValueError, StoreError as `get`."""
        data = self.get(path)
        try:
            return parse(data)
        except ValueError as error:
            raise self.damaged(path, error) from error
        except MemoryError as error:
            raise self._too_large(path) from error

    def delete(self, path: str) -> None:
        """Remove a file, if there is one."""
        self._check_may_write()
        with refused(f"the store {self.root}", "written", self.is_local), suppress(FileNotFoundError):
            self.filesystem.delete_file(self.at(path))

    def check_writable(self, folders: Iterable[str]) -> None:
        """Write a file and delete it again. Raises StoreError where the root refuses one of the two.

        Also where it has gone, or something that is no folder lies in the place of one that is written to.
        """
        self._check_may_write()
        if self.is_local:
            self._check_is_still_there()
            for folder in (UNFINISHED, *folders):
                check_can_be_folder(Path(self.at(folder)), "the store")
            check_writable_folder(Path(self._base), "the store")
            return
        self.put(probe := f".probe.{uuid4().hex}", b"probe")
        self.delete(probe)

    def _check_is_still_there(self) -> None:
        """A folder that somebody deleted, or whose disk is gone, is not begun again with what is left to write."""
        if self.is_local and self.landmark is not None and not Path(self.at(self.landmark)).exists():
            raise UnusableError(
                f"the store {self.root} has gone since it was begun: its {self.landmark} is not there any more; see "
                "whether it was deleted or its disk taken away, and run the same sweep again",
                False,
            )

    def _check_may_write(self) -> None:
        if self.only_reads:
            raise RuntimeError(f"the store {self.root} was opened to be read alone")

    def damaged(self, path: str, error: Exception) -> DamagedError:
        """The error to raise where a file cannot be understood."""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return DamagedError(f"{self.root}/{path} is damaged ({reason})", self.root)

    def _too_large(self, path: str) -> StoreError:
        return StoreError(
            f"{self.root}/{path} cannot be read (it does not fit into memory): delete it where it is larger than its "
            "like, and run the same sweep again"
        )


def write_file(path: Path, data: bytes | pa.Buffer) -> None:
    """Write a local file whole, in place of an earlier one; the folder is made. Raises StoreError where refused."""
    with refused(str(path), "written"):
        path.parent.mkdir(parents=True, exist_ok=True)
        _put_local(path, data, path.parent)


def check_writable_folder(folder: Path, what: str) -> None:
    """Try to write into a local folder, in the end or below it, and leave everything as it was.

    Raises StoreError, which begins with `what`, where the folder or the nearest one above it that exists refuses a
    file, or has no room for one of a mebibyte.
    """
    folder = expanded(folder, what).absolute()
    check_can_be_folder(folder, what)
    _check_is_no_file(folder, f"{what} {folder}")
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = folder / f".probe.{uuid4().hex}"
    with refused(f"{what} {folder}", "written"):
        try:
            _put_local(probe, PROBE, folder)
        finally:
            probe.unlink(missing_ok=True)
            with suppress(OSError):  # not made after all, or someone else has put something into it by now
                for path in made:
                    path.rmdir()


def check_can_be_folder(folder: Path, what: str) -> None:
    """Raises StoreError, which begins with `what`, where something else lies there, as a file or a link to nothing."""
    with refused(f"{what} {folder}", "reached"):
        in_the_way = os.path.lexists(folder) and not folder.is_dir()
    if in_the_way:
        kind = "a link to nothing" if folder.is_symlink() and not folder.exists() else "a file"
        raise StoreError(f"{what} needs a folder, {folder} is {kind}; name another place")


def expanded(path: Path, what: str) -> Path:
    """The path without "~". Raises StoreError where nobody has that home."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise StoreError(
            f"{what} {path} begins with a user's home, and there is no such user; name it in full"
        ) from error


def _check_spelling(root: str) -> None:
    """Raises StoreError where a root cannot be what was meant, or readers would take it for something else."""
    try:
        root.encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"the name of a store is text in UTF-8; received {root!r}: name another place") from error
    if (harmless := without_secret(root)) is not None:
        rule = "a store's URI is shown and logged, so it holds no secret"
        raise StoreError(
            f"{rule}; received {harmless}: leave it out, and set AWS_PROFILE or the variables of AWS's keys"
        )
    scheme, separator, rest = root.partition("://")
    if not separator and _LIKE_A_URI.match(root):
        scheme, _, rest = root.partition(":")
        slashes = "///" if scheme == "file" else "//"
        raise StoreError(
            f"a URI has two slashes after its scheme; received {root!r}: name {scheme}:{slashes}{rest.lstrip('/')}, "
            f"or ./{root} for a folder of that name"
        )
    if separator and scheme in ("s3", "gs") and not re.split("[/?]", rest)[0]:
        raise StoreError(f"a store in a bucket is {scheme}://BUCKET/NAME; received {root!r}: name the bucket")
    place = rest.partition("?")[0] if separator else str(expanded(Path(root), "the store").absolute())
    for part in place.split("/"):
        if _LIKE_A_PARTITION.match(part):
            raise StoreError(
                f"a store does not lie in a folder called NAME=VALUE, which readers as duckdb take for a column of its "
                f"tables; received {root}, in which {part!r} is one: name another place"
            )


def _open_root(root: str) -> tuple[fs.FileSystem, str, str]:
    """File system, path of the root within it, and the root in its full spelling."""
    _check_spelling(root)
    scheme, separator, _ = root.partition("://")
    if not separator and root:
        root = path = str(expanded(Path(root), "the store").absolute())
        filesystem: fs.FileSystem = fs.LocalFileSystem()
    elif scheme in URI_SCHEMES:
        if scheme != "file" and (reason := reason_out_of_reach(root)) is not None:
            raise StoreError(
                f"the store {root} cannot be reached: {reason}; check its name, the network and the credentials, or "
                "name a local folder"
            )
        try:
            filesystem, path = open_remote(root)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise StoreError(f"the store {root} cannot be opened: {error}") from error
    else:
        raise StoreError(f"a store is a folder or a URI of {', '.join(URI_SCHEMES)}; received {root!r}")
    if isinstance(filesystem, fs.LocalFileSystem):
        _check_is_no_file(Path(path), f"the store {root}")
    with refused(f"the store {root}", "reached"):
        is_file = filesystem.get_file_info(path).is_file
    if is_file:
        raise StoreError(f"a store is a folder, {root} is a file; name another place")
    return filesystem, path.rstrip("/"), root.rstrip("/")


def _check_is_no_file(folder: Path, what: str) -> None:
    """Raises StoreError where the folder, or the nearest place above it that exists, is no folder."""
    with refused(what, "reached"):
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        is_folder = nearest.is_dir()
    if not is_folder:
        raise StoreError(f"{what} needs a folder, {nearest} is a file; name another place")


def _put_local(path: Path, data: bytes | pa.Buffer, unfinished: Path) -> None:
    """Write the file in the folder for unfinished ones, then rename it to its place."""
    for folder in (path.parent, unfinished):
        folder.mkdir(parents=True, exist_ok=True)
    if unfinished.stat().st_dev != path.parent.stat().st_dev:  # a table that is a link to another disk: no rename
        unfinished = path.parent
    temporary = unfinished / f".{path.name}.{uuid4().hex}"
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name too outlives a power cut
    finally:
        os.close(descriptor)
