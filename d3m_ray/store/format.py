"""The format of a whole store, so that an older version of the package refuses what it would misread.

Raised by one where a store that holds both would be misread by earlier versions: a table, a key or a file that means
something else. A column that is added needs no other format (`tables.TableSpec.added`).
"""

import json

from d3m_ray.store.errors import StoreError
from d3m_ray.store.files import Files
from d3m_ray.store.provenance import software
from d3m_ray.version import __version__

FORMAT = 1
"""What this version writes; it reads every format up to it. A store without the record is of format 1."""
FORMAT_FILE = "format.json"


def read_format(files: Files) -> int | None:
    """The format that a store was written in, None where it has no record yet.

    Raises StoreError where the format is one that only a later version knows, or the record cannot be understood.
    """
    if not files.has(FORMAT_FILE):
        return None
    found, version = _parsed(files)
    if found > FORMAT:
        raise StoreError(
            f"a store is read by the version of d3m_ray that wrote it, or a later one; {files.root} has format "
            f"{found}, written by {version}, and this is {__version__}, which knows formats up to {FORMAT}: install "
            f"{version} or later, or name another store"
        )
    files.landmark = FORMAT_FILE
    return found


def record_format(files: Files, found: int | None) -> int:
    """The format after this version has written to the store, given what `read_format` found; recorded where new."""
    if found == FORMAT:
        return found
    files.put(FORMAT_FILE, json.dumps({"format": FORMAT, **software()}, indent=1).encode())
    files.landmark = FORMAT_FILE
    return FORMAT


def _parsed(files: Files) -> tuple[int, str]:
    """Format and package version of the record."""
    try:
        document = json.loads(files.get(FORMAT_FILE).to_pybytes())
        found, version = document["format"], document["package_version"]
        if not (type(found) is int and found >= 1 and isinstance(version, str)):
            raise ValueError(f"received {document!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{files.root}/{FORMAT_FILE} tells the store's format and is damaged ({_reason(error)}): restore it; where "
            f"no later version than {__version__} has written to the store, delete it"
        ) from error
    return found, version


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
