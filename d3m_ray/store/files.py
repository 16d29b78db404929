"""Whole files below one root, local or remote: a reader sees all of a file or none of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
from pyarrow import fs

URI_SCHEMES = ("file", "s3", "gs")
UNFINISHED_PREFIXES = (".", "_")  # pyarrow's and pandas' dataset readers skip such names too


class StoreError(Exception):
    """The store, or a file of it, cannot be used as asked; the message says which and what mends it."""


class Files:
    """The files below a root, by paths relative to it.

    Picklable. Construction asks the file system once whether the root can be used and raises StoreError where it is a
    file, a URI of an unknown scheme, or a place that cannot be reached. Nothing is created before the first `put`.
    """

    def __init__(self, root: str) -> None:
        self.filesystem, self._base, self.root = _open_root(root)

    def at(self, path: str) -> str:
        """The path within the file system."""
        return f"{self._base}/{path}"

    def paths(self, folder: str) -> Iterator[str]:
        """Paths of the finished files below a folder, none where the folder is absent."""
        selector = fs.FileSelector(self.at(folder), recursive=True, allow_not_found=True)
        for info in self.filesystem.get_file_info(selector):
            if info.is_file and not info.base_name.startswith(UNFINISHED_PREFIXES):
                yield info.path.removeprefix(f"{self._base}/")

    def has(self, path: str) -> bool:
        return self.filesystem.get_file_info(self.at(path)).is_file

    def put(self, path: str, data: bytes | pa.Buffer) -> None:
        """Write a whole file, in place of an earlier one."""
        if isinstance(self.filesystem, fs.LocalFileSystem):
            _put_local(Path(self.at(path)), data)
            return
        # An object appears when its upload completes. The data is whole by now: an error cannot complete a part of it.
        with self.filesystem.open_output_stream(self.at(path)) as stream:
            stream.write(data)

    def get(self, path: str) -> pa.Buffer:
        """The content of a file. Raises StoreError where there is none."""
        try:
            with self.filesystem.open_input_file(self.at(path)) as file:
                return file.read_buffer()
        except FileNotFoundError as error:
            raise StoreError(f"{self.root} holds no {path}; run the sweep that makes it") from error

    def delete(self, path: str) -> None:
        """Remove a file, if there is one."""
        if self.has(path):
            self.filesystem.delete_file(self.at(path))

    def damaged(self, path: str, error: Exception) -> StoreError:
        """The error to raise where a file cannot be understood."""
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return StoreError(f"{self.root}/{path} is damaged ({reason}); delete it and run the same sweep again")


def _open_root(root: str) -> tuple[fs.FileSystem, str, str]:
    """File system, path of the root within it, and the root in its full spelling."""
    scheme, separator, _ = root.partition("://")
    if not separator:
        root = path = str(Path(root).expanduser().absolute())
        filesystem: fs.FileSystem = fs.LocalFileSystem()
    elif scheme in URI_SCHEMES:
        try:
            filesystem, path = fs.FileSystem.from_uri(root)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"the store {root} cannot be opened: {error}") from error
    else:
        raise StoreError(f"a store is a folder or a URI of {', '.join(URI_SCHEMES)}; received {root!r}")
    try:
        is_file = filesystem.get_file_info(path).is_file
    except OSError as error:
        raise StoreError(f"the store {root} cannot be reached: {error}") from error
    if is_file:
        raise StoreError(f"a store is a folder, {root} is a file; name another place")
    return filesystem, path.rstrip("/"), root.rstrip("/")


def _put_local(path: Path, data: bytes | pa.Buffer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name too outlives a power cut
    finally:
        os.close(folder)
