"""Lets a wheel know the commit that it was built from, so that results of an installed package name it."""

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds `commit.txt` to the package; an editable installation asks its checkout, which goes on."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from d3m_ray.store.provenance import BUILT_FROM, commit

        self._folder = tempfile.TemporaryDirectory()
        written = Path(self._folder.name) / "commit.txt"
        written.write_text(f"{commit(Path(self.root))}\n", encoding="utf-8")
        build_data["force_include"][str(written)] = BUILT_FROM
