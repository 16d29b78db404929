"""What the commands' arguments name: one of the names that there are, and a file that can be written."""

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path

from d3m_ray.errors import InputError
from d3m_ray.store.files import StoreError, expanded, refused


def check_known(flag: str, received: str, known: Collection[str]) -> None:
    """Raises InputError where a name is none of those known."""
    if received in known:
        return
    close = get_close_matches(received, known, 1) or [name for name in known if received.startswith(f"{name}_")]
    hint = f" (did you mean {close[-1]!r}?)" if close else ""
    raise InputError(f"{flag} is one of {', '.join(map(repr, known))}; received {received!r}{hint}")


def checked_file(out: str, mend: str = "name another, or leave it out for the standard output") -> Path:
    """The path, where a file can be put in its place. Raises StoreError where something else lies there."""
    path = expanded(Path(out), "--out").absolute()
    with refused(f"--out {path}", "reached"):
        is_other = path.exists() and not path.is_file()
        path = path.resolve()
    if is_other:
        raise StoreError(f"--out is a file, and {path} is none; {mend}")
    return path
