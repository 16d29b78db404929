"""The wheel, in an environment that has nothing of the checkout: all its data, its version, and the demo by d3m-ray."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from zipfile import ZipFile

import pandas as pd
import pytest

import d3m_ray
from d3m_ray.store.provenance import commit
from d3m_ray.store.store import Store

ROOT = Path(__file__).resolve().parents[1]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by hatchling where it is installed, else by the one that pip fetches."""
    folder = tmp_path_factory.mktemp("wheel")
    is_installed = importlib.util.find_spec("hatchling") is not None
    isolation = ["--no-build-isolation"] if is_installed else []
    command = [*PIP, "wheel", "--no-deps", *isolation, "--wheel-dir", str(folder), str(ROOT)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if ended.returncode and not is_installed:
        pytest.skip(f"the wheel is built by hatchling, which is neither installed nor fetched: {ended.stderr[-300:]}")
    assert ended.returncode == 0, ended.stderr[-3000:]
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment of the wheel alone, to which the dependencies of this one are shown."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    target = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    subprocess.run(
        [*PIP, "--python", str(folder / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel)],
        check=True, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    here = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    (target / "dependencies.pth").write_text("\n".join(here))  # of a path so named, no .pth is read: no checkout
    return folder


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    called = [str(environment / "bin" / command[0]), *command[1:]]
    return subprocess.run(called, cwd=folder, env=outside, capture_output=True, text=True, timeout=400, check=False)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as content:
        names = {name for name in content.namelist() if ".dist-info/" not in name}
        built_from = content.read("d3m_ray/commit.txt").decode().strip()
    files = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "d3m_ray").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {Path(name).suffix for name in files} >= {".css", ".js", ".j2", ".toml", ".typed"}
    assert names == files | {"d3m_ray/commit.txt"}
    assert built_from.removesuffix("-dirty") == commit().removesuffix("-dirty")
    assert wheel.name.startswith(f"d3m_ray-{d3m_ray.__version__}-")


def test_the_demo_runs_by_the_console_script(environment: Path, tmp_path: Path) -> None:
    told = run(environment, tmp_path, "d3m-ray", "--version")
    assert (told.returncode, told.stdout.strip()) == (0, f"d3m-ray {d3m_ray.__version__}")
    found = run(environment, tmp_path, "python", "-c", "import d3m_ray, sys; print(d3m_ray.__file__, *sys.path)")
    assert found.stdout.startswith(str(environment))
    assert str(ROOT) not in found.stdout.split()

    sizes = "--num-train 80 --num-val 40 --num-test 40 --num-removed 0 8 --seeds 0 1 --num-epochs 1"
    command = f"run planted --engine local --store results --methods trak random --projection-dim 64 {sizes}"
    ended = run(environment, tmp_path, "d3m-ray", *command.split())
    assert ended.returncode == 0, ended.stderr[-3000:]
    (experiment,) = Store(tmp_path / "results").read_experiments().values()
    trials = pd.read_parquet(tmp_path / "results" / "trials")
    assert trials["trial_key"].nunique() == 2 * 2 * 2
    assert (tmp_path / "results" / "figures" / experiment.name / "report.html").stat().st_size > 100_000
    assert experiment.provenance["package_version"] == d3m_ray.__version__
    assert experiment.provenance["commit"].removesuffix("-dirty") == commit().removesuffix("-dirty")
