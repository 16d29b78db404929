"""The errors of a store, each a line that says what it is about and what fixes it."""

import errno
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager

REMEDIES = {
    errno.ENOSPC: "free some space, or name another place",
    errno.EDQUOT: "free some space, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "name a place that this user may read and write",
    errno.EPERM: "name a place that this user may read and write",
}

FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreError(Exception):
    """The store, or a file of it, cannot be used as asked; the message says which and what fixes it."""


class DamagedError(StoreError):
    """A file of the store is no longer what was written: which one, what is wrong with it, and the store's root.

    A sweep deletes such a file and recomputes its result; who only reads is told how to, as a command to copy.
    """

    def __init__(self, what: str, root: str) -> None:
        super().__init__(what, root)

    def __str__(self) -> str:
        what, root = self.args
        command = shlex.join(["d3m-ray", "check", root, "--repair"])
        return f"{what}; {command} deletes it, and the same sweep run again recomputes it"


class UnusableError(StoreError):
    """A local store is full, read-only or gone, which no other try would find otherwise.

    Its arguments are the line, and whether every machine finds the same, as of a full disk.
    """

    def __str__(self) -> str:
        return str(self.args[0])


@contextmanager
def refused(what: str, done: str, is_local_store: bool = False) -> Iterator[None]:
    """Turns what the file system refuses within the block into a StoreError of one line.

    Where a local store is written to, and the user alone can do something about it, that is an UnusableError.
    """
    try:
        yield
    except BrokenPipeError:  # the reader of the standard output has gone: nothing to do with what is written here
        raise
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split()) or type(error).__name__
        remedy = REMEDIES.get(error.errno or 0, "see to it, or name another place")
        line = f"{what} cannot be {done} ({reason}): {remedy}"
        if is_local_store and error.errno in REMEDIES:
            raise UnusableError(line, error.errno in FULL) from error
        raise StoreError(line) from error
