"""A method, arms, a recipe and a corpus in small files outside the package: `tests/plugin`, by public names alone."""

import ast
import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import d3m_ray
from d3m_ray.store.store import Store
from d3m_ray.testing import check_arm, check_corpus, check_method, check_recipe

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = Path(__file__).parent / "plugin"
FILES = sorted((PLUGIN / "d3m_ray_example").glob("[a-z]*.py"))
MAX_LINES = 40


@pytest.fixture
def imported(own_registries: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files, registered until the end of the test."""
    monkeypatch.syspath_prepend(PLUGIN)
    for path in FILES:
        importlib.import_module(f"d3m_ray_example.{path.stem}")
    yield
    for name in [name for name in sys.modules if name.startswith("d3m_ray_example")]:
        del sys.modules[name]


def test_each_file_keeps_what_the_engine_relies_on(imported: None) -> None:
    check_method("overlap")
    check_arm("oldest")
    check_arm("oldest_clipped")
    check_recipe("clipped")
    check_corpus("menus")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_short_and_uses_public_names_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    nodes = list(ast.walk(ast.parse(text)))
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [line for line in imports if "d3m_ray" in line] == ["import d3m_ray as d3m"]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "d3m"}
    assert used
    assert used <= set(d3m_ray.__all__)


@pytest.mark.slow
def test_it_is_installed_and_run_by_its_own_flags(tmp_path: Path) -> None:
    source, installed, store = tmp_path / "source", tmp_path / "installed", tmp_path / "store"
    shutil.copytree(PLUGIN, source)  # setuptools builds beside it
    without_network = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
    pip = [sys.executable, "-m", "pip", "install", *without_network, "--target", str(installed), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True, timeout=120)

    arms = "--methods overlap oldest random clipped oldest_clipped"
    command = f"run menus --num-dishes 32 {arms} --overlap-at-least 0.2 --clipped-most 0.5 --engine local"
    small = "--model tiny --num-epochs 1 --learning-rate 1e-3 --num-removed 0 6 --seeds 0 1 --store"
    ended = subprocess.run(
        [sys.executable, "-m", "d3m_ray", *command.split(), *small.split(), str(store)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), str(ROOT)])},
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]

    trials = d3m_ray.read_trials(store, split="test")
    assert set(trials["dataset"]) == {"menus"}
    assert set(trials["group"]) >= {"bistro", "canteen", "all", "worst"}
    counts = trials[trials["group"] == "all"].groupby(["method", "num_removed"])["seed"].count()
    removing = ("overlap", "oldest", "oldest_clipped", "random")
    assert counts.to_dict() == {(arm, number): 2 for arm in removing for number in (0, 6)} | {("clipped", 0): 2}
    recipes = trials.groupby(["method", "num_removed"])["objective"].unique().str.join(" ").to_dict()
    assert {asked for asked, recipe in recipes.items() if recipe != "erm"} == {("clipped", 0), ("oldest_clipped", 6)}
    removed = d3m_ray.read_removals(store, "oldest").groupby("seed")["example_id"].agg(set)
    assert removed.tolist() == [{f"train/{number}" for number in range(6)}] * 2
    scores = d3m_ray.read_scores(store, "overlap")
    assert len(scores) == 32 * 2
    assert scores["score"].abs().between(0, 1).all()
    (experiment,) = Store(store).read_experiments().values()
    assert experiment.configuration["plugins"] == {"overlap": {"at_least": 0.2}, "clipped": {"most": 0.5}}
    assert experiment.configuration["corpus"]["num_dishes"] == 32
