"""What a result says of the software and the machine that made it."""

import json
import os
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

import d3m_ray
from d3m_ray.store import provenance as module
from d3m_ray.store.provenance import UNKNOWN, commit, current_provenance

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
