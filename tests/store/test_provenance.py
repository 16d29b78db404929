"""What a result says of the software and the machine that made it."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import d3m_ray
from d3m_ray.store import provenance as module
from d3m_ray.store.provenance import UNKNOWN, commit, current_provenance, environment_hash

ROOT = Path(__file__).resolve().parents[2]


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, env=outside, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "one")
    git(tmp_path, "tag", "a-tag")
    return tmp_path


def test_a_checkout_is_known_by_its_commit_and_whether_it_was_changed(checkout: Path, monkeypatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")  # as in a hook of another repository
    head = git(checkout, "rev-parse", "HEAD")
    assert len(head) == 40
    assert commit.__wrapped__(checkout) == head
    (checkout / "results").write_text("not tracked")
    assert commit.__wrapped__(checkout) == head
    (checkout / "file").write_text("two")
    assert commit.__wrapped__(checkout) == f"{head}-dirty"


def test_without_a_checkout_or_git_the_commit_is_unknown(checkout: Path, tmp_path: Path, monkeypatch) -> None:
    (checkout / "inner").mkdir()
    assert commit.__wrapped__(checkout / "inner") == UNKNOWN, "installed below another project's checkout"
    monkeypatch.setattr(module, "DESCRIBE", ("no-such-git",))
    assert commit.__wrapped__(checkout) == UNKNOWN
    monkeypatch.setattr(module, "DESCRIBE", ("git", "no-such-command"))
    assert commit.__wrapped__(checkout) == UNKNOWN


def test_provenance_names_versions_and_machine_in_json() -> None:
    provenance = current_provenance("cpu")
    assert json.loads(json.dumps(provenance)) == provenance
    assert set(provenance) == {
        "package_version", "commit", "library_versions", "python", "system", "host", "num_cores", "device",
        "recorded_at",
    }  # fmt: skip
    assert provenance["package_version"] == d3m_ray.__version__
    assert provenance["num_cores"] >= 1
    assert provenance["device"] == "cpu"


def test_an_installed_package_knows_what_it_was_built_from(tmp_path: Path) -> None:
    (tmp_path / "d3m_ray").mkdir()
    (tmp_path / "d3m_ray" / "commit.txt").write_text("abc123\n")
    assert commit.__wrapped__(tmp_path) == "abc123"


def test_the_package_has_one_version() -> None:
    """Which the build reads from where the package reads it."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert document["project"]["dynamic"] == ["version"]
    place = ROOT / document["tool"]["hatch"]["version"]["path"]
    assert f'__version__ = "{d3m_ray.__version__}"' in place.read_text(encoding="utf-8")


CPU = "processor\t: 0\nmodel name\t: One\ncpu MHz\t\t: {mhz}\nflags\t\t: {flags}\n"


def test_an_environment_is_its_processor_libraries_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor = tmp_path / "cpuinfo"
    processor.write_text(CPU.format(mhz=2000, flags="avx2"))
    monkeypatch.setattr(module, "PROCESSOR", processor)
    found = [environment_hash(tmp_path)]
    processor.write_text(2 * CPU.format(mhz=2100, flags="avx2"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert environment_hash(tmp_path) == found[0], "neither how fast it goes just now nor how many cores there are"
    processor.write_text(CPU.format(mhz=2000, flags="avx2 avx512_bf16"))
    found.append(environment_hash(tmp_path))
    monkeypatch.setattr(module, "_library_versions", lambda: {"torch": "0"})
    found.append(environment_hash(tmp_path))
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    found.append(environment_hash(tmp_path))
    monkeypatch.setattr(sys, "version", "another")
    found.append(environment_hash(tmp_path))
    package = tmp_path / "package"
    shutil.copytree(ROOT / "d3m_ray", package, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "PACKAGE", package)
    assert environment_hash(tmp_path) == found[-1], "wherever it lies"
    (package / "errors.py").write_text("")
    found.append(environment_hash(tmp_path))
    assert len(set(found)) == len(found) == 6
    assert None not in found


@pytest.mark.parametrize("device", ["nvidia0", "kfd", "dxg"])
def test_an_environment_with_a_gpu_or_an_unknown_processor_cannot_be_told(
    device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environment_hash(tmp_path) is not None
    (tmp_path / device).touch()
    assert environment_hash(tmp_path) is None
    monkeypatch.setattr(module, "PROCESSOR", tmp_path / "nothing")
    assert environment_hash(tmp_path / "no devices") is None
