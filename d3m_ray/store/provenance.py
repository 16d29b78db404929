"""Which software made a result, and on which machine."""

import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from d3m_ray.keys import content_hash
from d3m_ray.version import __version__

Provenance = Mapping[str, str | int | Mapping[str, str]]

UNKNOWN = "unknown"
RECORDED_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "ray",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
)
LIBRARIES_OF_MODELS = (
    *("safetensors", "huggingface-hub", "sentencepiece", "tiktoken", "protobuf", "accelerate", "peft"),
    *("traker", "kronfluence"),
)
"""What transformers reads models with where it is installed, and what arms are tried with, besides those recorded."""
PACKAGE = Path(__file__).resolve().parents[1]
PACKAGE_PARENT = Path(__file__).resolve().parents[2]  # the root of a checkout, else a folder of installed packages
BUILT_FROM = "d3m_ray/commit.txt"  # in a wheel alone: `hatch_build.py` writes the commit that it was built from
MAX_SECONDS = 5.0  # for git to answer
PROCESSOR = Path("/proc/cpuinfo")
OF_PROCESSOR = re.compile(r"(vendor_id|cpu family|model|model name|stepping|flags|CPU [a-z]+|Features)\s*:.*")
GPUS = ("nvidia*", "kfd", "dxg")  # below /dev
READ_BY_LIBRARIES = ("ATEN_", "PYTORCH_", "TORCH_", "TRANSFORMERS_")  # environment variables that begin so
DESCRIBE = ("git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=40")


def software() -> dict[str, str | dict[str, str]]:
    """`package_version`, `commit` and `library_versions`: the metadata of every file."""
    return {"package_version": __version__, "commit": commit(), "library_versions": _library_versions()}


def current_provenance(device: str) -> Provenance:
    """What `software` says, and `python`, `system`, `host`, `num_cores` (that this process may use), `device`.

    And `recorded_at`, the time in ISO format. `device` is what the caller computes on. JSON values.
    """
    return {
        **software(),
        "python": platform.python_version(),
        "system": platform.platform(),
        "host": socket.gethostname(),
        "num_cores": _num_cores(),
        "device": device,
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def commit(root: Path = PACKAGE_PARENT) -> str:
    """The commit of the git checkout in this folder, `-dirty` behind it where tracked files were changed since.

    Of a package that was installed, that of the checkout it was built from. `UNKNOWN` where neither is known, or git
    is missing or refuses.
    """
    if not (root / ".git").exists():
        built_from = root / BUILT_FROM
        return built_from.read_text(encoding="utf-8").strip() if built_from.is_file() else UNKNOWN
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}  # as in a git hook
    try:
        said = subprocess.run(
            DESCRIBE,
            cwd=root,
            env={**outside, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=MAX_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return said.stdout.strip() or UNKNOWN


def environment_hash(devices: Path = Path("/dev")) -> str | None:
    """Hash of what a computation on this machine's processor depends on besides its inputs.

    That is the code of this package, Python, the versions of the libraries that compute or read models, the processor,
    and the variables that torch and transformers read. None where it cannot be told: of a machine that has a GPU, whose
    driver says which device a process gets, or of a system that does not describe its processor in a file. A library
    that somebody edits in its place under the same version is not seen.
    """
    if not PROCESSOR.is_file() or any(True for name in GPUS for _ in devices.glob(name)):
        return None
    processor = {line for line in PROCESSOR.read_text(encoding="utf-8").splitlines() if OF_PROCESSOR.fullmatch(line)}
    versions = _library_versions() | {library: _version(library) or "" for library in LIBRARIES_OF_MODELS}
    variables = [f"{name}={os.environ[name]}" for name in sorted(os.environ) if name.startswith(READ_BY_LIBRARIES)]
    files = sorted(PACKAGE.rglob("*.py"))
    code = [part for path in files for part in (str(path.relative_to(PACKAGE)), path.read_bytes())]
    return content_hash(sys.version, platform.machine(), sorted(processor), versions, variables, *code)


def _num_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _library_versions() -> dict[str, str]:
    return {library: found for library in RECORDED_LIBRARIES if (found := _version(library)) is not None}


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # a reader of results needs none of them to be trained with
        return None
