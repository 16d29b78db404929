"""The Dockerfile, without Docker: the files that it takes make the package by its own commands, and its rules hold."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "Dockerfile").read_text()
BUILDING = re.sub(r"\\\n\s*", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE))
INSTRUCTIONS = [tuple(line.split(maxsplit=1)) for line in BUILDING.splitlines() if line]
KEPT = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]


def of_kind(kind: str) -> list[str]:
    return [rest for name, rest in INSTRUCTIONS if name == kind]


def copied() -> dict[str, str]:
    """What is copied into the image, by where it goes below the folder of the installation."""
    found = {}
    for rest in of_kind("COPY"):
        *sources, target = rest.split()
        found |= {source: source if target == "./" else target for source in sources}
    return found


def test_docker_is_shown_what_is_copied_and_nothing_else() -> None:
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    assert sorted(copied()) == sorted(KEPT)
    assert all((ROOT / source).exists() for source in copied())


@pytest.mark.slow
def test_its_files_make_the_package_that_knows_its_commit(tmp_path: Path) -> None:
    source, installed = tmp_path / "source", tmp_path / "installed"
    for name, target in copied().items():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            source.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, source / target)
    (run,) = [command for command in of_kind("RUN") if "pip install" in command]
    written, install, *_ = (part.strip() for part in re.sub(r"--mount=\S+", "", run).split("&&"))
    assert install == 'pip install --no-cache-dir --constraint requirements.lock ".[aws]"'
    offline = f'{sys.executable} -m pip install -q --no-deps --no-build-isolation --target {installed} "."'
    subprocess.run(
        ["bash", "-ec", f"COMMIT=0123abc; {written}; {offline}"],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=120,
    )
    assert (installed / "d3m_ray" / "commit.txt").read_text() == "0123abc\n"
    assert (installed / "d3m_ray" / "analysis" / "report").is_dir()
    (metadata,) = installed.glob("d3m_ray-*.dist-info/METADATA")
    assert "\nProvides-Extra: aws\n" in metadata.read_text()


def test_it_names_no_index_and_keeps_no_secret() -> None:
    """pip's configuration says where packages come from; it is there for one command, and not in the image."""
    assert "://" not in TEXT
    assert "index" not in BUILDING
    assert of_kind("FROM") == ["python:${PYTHON_VERSION}-slim"]
    assert "--mount=type=secret,id=pip.conf,target=/etc/pip.conf" in BUILDING
    assert not [rest for rest in [*of_kind("COPY"), *of_kind("ENV")] if re.search("pip.conf|TOKEN|KEY|PIP_", rest)]


def test_its_python_is_one_that_the_package_takes() -> None:
    (version,) = re.findall(r"^ARG PYTHON_VERSION=3\.(\d+)$", TEXT, re.MULTILINE)
    assert f"Programming Language :: Python :: 3.{version}" in (ROOT / "pyproject.toml").read_text()


def test_it_runs_as_a_user_by_number() -> None:
    """Else a cluster that takes no root could not tell that this is none."""
    (user,) = of_kind("USER")
    assert int(user) > 0
    assert f"--uid {user} " in BUILDING
    assert of_kind("ENTRYPOINT") == ['["d3m-ray"]']


def test_kubernetes_runs_the_image_that_is_built() -> None:
    (tag,) = set(re.findall(r"--tag (\S+)", TEXT))
    cluster = yaml.safe_load((ROOT / "cluster" / "rayjob.yaml").read_text())["spec"]["rayClusterSpec"]
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert {pod["template"]["spec"]["containers"][0]["image"] for pod in pods} == {tag}
