"""Whether what a store holds is still what was written: files are read once, damaged ones are deleted and said."""

from collections.abc import Callable, Collection, Mapping

from d3m_ray.store.errors import DamagedError
from d3m_ray.store.files import Files
from d3m_ray.store.results import NUM_LISTINGS, check_result, find_damaged, result_files, scan_results
from d3m_ray.waiting import Say


class Wholeness:
    """What was found whole of the files of a store, which is read again only where it has changed since.

    Of files that are only read, what is damaged is said and stays where it is.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._whole: dict[str, str] = {}  # by path, the size and time of what was found whole

    def of_reader(self, files: Files) -> "Wholeness":
        """The same for what only reads these files; what either finds whole, both know."""
        same = Wholeness(files)
        same._whole = self._whole
        return same

    def holds(self, path: str, read: Callable[[], object], say: Say) -> bool:
        """Whether there is a file that `read`, which raises DamagedError, finds whole."""
        version = self._files.versions_of([path]).get(path)
        if version is None or version == self._whole.get(path):
            return version is not None
        try:
            read()
        except DamagedError as error:
            self.discard({path: error}, say)
            return False
        self._whole[path] = version
        return True

    def holds_result(self, table: str, path: str, say: Say) -> bool:
        """As `holds`, of a result."""
        return self.holds(path, lambda: check_result(self._files, table, path), say)

    def whole_results(self, table: str, paths: Collection[str], say: Say) -> set[str]:
        """Those of the paths of a table where there is a whole file; many are read in parallel."""
        versions = self._files.versions(table)
        stored = [path for path in paths if path in versions]
        faults = find_damaged(self._files, table, [p for p in stored if self._whole.get(p) != versions[p]])
        self.discard(faults, say)
        whole = {path: versions[path] for path in stored if path not in faults}
        self._whole |= whole
        return set(whole)

    def discard_damaged(self, table: str, say: Say) -> None:
        """Every damaged file of a table. One without any is read once, in parallel."""
        for _ in range(NUM_LISTINGS):
            try:
                scan_results(self._files, table, result_files(self._files, table, table), None, None)
            except FileNotFoundError:
                continue
            except DamagedError:
                self.discard(find_damaged(self._files, table, result_files(self._files, table, table)), say)
            return

    def discard(self, faults: Mapping[str, DamagedError], say: Say) -> None:
        """Delete the files of these paths, and say it; of those that are only read, say what is wrong."""
        for path, error in faults.items():
            if self._files.only_reads:
                say(str(error))
                continue
            self._files.delete(path)
            say(f"{error.args[0]}: deleted; the sweep that it belongs to recomputes it")
