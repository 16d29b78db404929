"""The folder of Tune's files: it goes when its run ends, and the next run sweeps away what a killed one left."""

import fcntl
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

PREFIX = "d3m_ray_tune_"
LOCK = ".lock"  # held by the process that uses the folder: the system lets go of it however that ends


class Scratch:
    """A folder below the temporary one, made for a run of Tune and deleted after it."""

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._lock: IO[str] | None = None

    def make(self) -> str:
        """Make the folder, sweep away those that nobody uses, and say where it is."""
        _sweep()
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = (self._folder / f"{LOCK}.new").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        (self._folder / f"{LOCK}.new").rename(self._folder / LOCK)  # nobody finds it before it is held
        return str(self._folder)

    def delete(self) -> None:
        """Delete the folder, if there is one, and let go of its lock."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()


def _sweep() -> None:
    """Delete the folders of processes that are gone. A lock tells them, and no process id: containers share folders."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (folder / LOCK).open("r+") as lock:  # somebody else's, in use, or just swept
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
