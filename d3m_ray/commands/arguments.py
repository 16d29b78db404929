"""What a command's argument names: a file that can be written."""

from pathlib import Path

from d3m_ray.store.errors import StoreError, refused
from d3m_ray.store.files import expanded


def checked_file(out: str, fix: str = "name another, or leave it out for the standard output") -> Path:
    """The path, where a file can be put in its place. Raises StoreError where something else lies there."""
    path = expanded(Path(out), "--out").absolute()
    with refused(f"--out {path}", "reached"):
        is_other = path.exists() and not path.is_file()
        path = path.resolve()
    if is_other:
        raise StoreError(f"--out is a file, and {path} is none; {fix}")
    return path
