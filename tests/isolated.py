"""Sessions of a shell in network, process and mount namespaces of their own: what they start ends with them.

The ports are private, and `ray stop` sees only their processes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"])
ISOLATED = ("unshare", "--net", "--pid", "--mount-proc", "--uts", "--fork", "--kill-child")


def why_not(programs: Sequence[str]) -> str | None:
    """Why no session can be had that takes these programs; None where one can."""
    missing = [program for program in (*programs, "unshare") if shutil.which(program, path=PATH) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0 or subprocess.run([*ISOLATED, "true"], capture_output=True, check=False).returncode != 0:
        return "namespaces of its own need root"
    return None


def session(
    script: str,
    variables: Mapping[str, str],
    without: Sequence[str],
    folder: Path | None = None,
    stderr: int = subprocess.STDOUT,
) -> "subprocess.CompletedProcess[str]":
    """Run the script of bash, with these variables and without inherited ones that begin so."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(tuple(without))}
    return subprocess.run(
        [*ISOLATED, "bash", "-c", script],
        cwd=folder,
        env={**inherited, "PATH": PATH, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=400,
        check=False,
    )
