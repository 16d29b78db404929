"""The boundaries between the layers, held by parsing every import, those inside functions included."""

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "d3m_ray"
ANALYSIS_MAY_IMPORT = ("analysis", "config", "keys", "metrics", "records", "store")
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "process"}
MAX_MODULE_LINES = 330
MAX_SWEEP_LINES = 60


@dataclass(frozen=True)
class Module:
    """What the rules need to know of one file. Names are relative to the package: `trial`, `cluster.pool`."""

    name: str
    imports: frozenset[str]
    """Runtime imports: `ray.tune` for a third party, `.trial` (with the dot) for a module of the package."""
    docstring: str | None
    num_lines: int

    def within(self, *names: str) -> bool:
        return any(self.name == name or self.name.startswith(f"{name}.") for name in names)

    @property
    def third_parties(self) -> set[str]:
        tops = {name.partition(".")[0] for name in self.imports if not name.startswith(".")}
        return tops - set(sys.stdlib_module_names)

    @property
    def own(self) -> set[str]:
        return {name[1:] for name in self.imports if name.startswith(".")}


Modules = Mapping[str, Module]
Rule = Callable[[Modules], list[str]]


# --- reading a package ------------------------------------------------------------------------------------------------


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that can run: the body of `if TYPE_CHECKING:` cannot, its `else` can."""
    yield node
    children = node.orelse if isinstance(node, ast.If) and _is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from _runtime_nodes(child)


def _imported_names(node: ast.AST, package_path: list[str]) -> Iterator[str]:
    """The absolute dotted names that an import statement, or a call of `import_module`, may bind or load."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package_path[: len(package_path) + 1 - node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
        yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _resolve(names: Iterator[str], known: set[str]) -> Iterator[str]:
    """Third-party names as they are; the package's own as `.module`, leaving out what is no module."""
    for name in names:
        if name == PACKAGE or name.startswith(f"{PACKAGE}."):
            own = name.removeprefix(PACKAGE).removeprefix(".")
            if own in known:
                yield f".{own}"
        else:
            yield name


def read_package(root: Path) -> dict[str, Module]:
    """The modules of the package in this folder by their relative name; the package itself is `""`."""
    paths = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules = {}
    for name, path in paths.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        package_path = [PACKAGE, *path.relative_to(root).parts[:-1]]
        names = (found for node in _runtime_nodes(tree) for found in _imported_names(node, package_path))
        imports = frozenset(_resolve(names, set(paths))) - {f".{name}"}
        modules[name] = Module(name, imports, ast.get_docstring(tree), len(text.splitlines()))
    return modules


def _reachable(modules: Modules, start: str, without: str = "") -> set[str]:
    """The modules that importing this one loads, itself left out, and what only those in `without` load left out."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in modules[waiting.pop()].own - seen:
            if not (without and modules[name].within(without)):
                seen.add(name)
                waiting.append(name)
    return seen - {start}


# --- the rules: each gives the violations that it finds ---------------------------------------------------------------


def only_cluster_imports_ray(modules: Modules) -> list[str]:
    return [m.name for m in modules.values() if "ray" in m.third_parties and not m.within("cluster")]


def only_analysis_imports_matplotlib(modules: Modules) -> list[str]:
    return [m.name for m in modules.values() if "matplotlib" in m.third_parties and not m.within("analysis")]


def records_need_numpy_and_keys_only(modules: Modules) -> list[str]:
    allowed = {"records": ({"numpy"}, {"", "keys"}), "keys": (set(), {""})}
    found = []
    for name, (third_parties, own) in allowed.items():
        excess = (modules[name].third_parties - third_parties) | (modules[name].own - own)
        found += [f"{name} imports {extra}" for extra in sorted(excess)]
    return found


def analysis_reads_only_the_store(modules: Modules) -> list[str]:
    found = []
    for module in (m for m in modules.values() if m.within("analysis")):
        own = {name for name in module.own if name and name.split(".")[0] not in ANALYSIS_MAY_IMPORT}
        excess = own | (module.third_parties & {"ray", "torch", "transformers"})
        found += [f"{module.name} imports {extra}" for extra in sorted(excess)]
    return found


def trials_know_nothing_of_attribution(modules: Modules) -> list[str]:
    found = []
    for name in ("trial", "training"):
        loaded = _reachable(modules, name)
        found += [
            f"{name} loads {other}" for other in sorted(loaded) if modules[other].within("attribution", "alignment")
        ]
    return found


def only_experiment_knows_the_order(modules: Modules) -> list[str]:
    """Attribution and trials meet in experiment.py; elsewhere nothing loads both, but through it."""
    return _where_both_meet(modules, "attribution", "trial", "experiment")


def only_the_command_line_shows_what_the_cluster_did(modules: Modules) -> list[str]:
    """The sweep's command line runs on the cluster and then has the results drawn; nothing else loads both."""
    return _where_both_meet(modules, "cluster", "analysis", "command")


def _where_both_meet(modules: Modules, one: str, other: str, only_in: str) -> list[str]:
    found = []
    for name in (m.name for m in modules.values() if not m.within(only_in)):
        loaded = {name, *_reachable(modules, name, without=only_in)}
        if all(any(modules[m].within(end) for m in loaded) for end in (one, other)):
            found.append(f"{name} loads {one} and {other}")
    return sorted(found)


def no_circles(modules: Modules) -> list[str]:
    return [name for name, module in modules.items() if any(name in _reachable(modules, own) for own in module.own)]


def modules_are_short(modules: Modules) -> list[str]:
    return [f"{m.name} has {m.num_lines} lines" for m in modules.values() if m.num_lines > MAX_MODULE_LINES]


def modules_have_docstrings(modules: Modules) -> list[str]:
    return [m.name for m in modules.values() if not m.docstring]


def names_say_something(modules: Modules) -> list[str]:
    return [name for name in modules if NAMES_THAT_SAY_NOTHING & set(name.split("."))]


RULES: tuple[Rule, ...] = (
    only_cluster_imports_ray,
    only_analysis_imports_matplotlib,
    records_need_numpy_and_keys_only,
    analysis_reads_only_the_store,
    trials_know_nothing_of_attribution,
    only_experiment_knows_the_order,
    only_the_command_line_shows_what_the_cluster_did,
    no_circles,
    modules_are_short,
    modules_have_docstrings,
    names_say_something,
)

# --- the tests --------------------------------------------------------------------------------------------------------

LAWFUL = {
    "__init__.py": "'d'",
    "keys.py": "'d'\nimport hashlib",
    "records.py": "'d'\nimport numpy as np\nfrom d3m_ray.keys import content_hash",
    "training.py": "'d'\nimport torch\nfrom d3m_ray.records import Examples",
    "trial.py": "'d'\nfrom d3m_ray.training import fine_tune\nif TYPE_CHECKING:\n    import ray",
    "experiment.py": "'d'\nfrom d3m_ray import attribution, trial",
    "command.py": "'d'\nfrom d3m_ray import experiment, cluster, analysis",
    "attribution/__init__.py": "'d'\nfrom d3m_ray.attribution.trak import score",
    "attribution/trak.py": "'d'\nfrom d3m_ray.records import Examples",
    "analysis/__init__.py": "'d'",
    "analysis/tables.py": "'d'\nimport matplotlib\nfrom d3m_ray.store import Store\nfrom d3m_ray import __version__",
    "store.py": "'d'\nimport pyarrow",
    "cluster/__init__.py": "'d'",
    "cluster/sweep.py": "'d'\nfrom ray import tune\nfrom d3m_ray.trial import run_trial",
}

UNLAWFUL = [
    (only_cluster_imports_ray, {"trial.py": "'d'\nimport ray"}),
    (only_cluster_imports_ray, {"trial.py": "'d'\ndef f():\n    from ray.tune import report"}),
    (only_cluster_imports_ray, {"trial.py": "'d'\nimport importlib\nimportlib.import_module('ray')"}),
    (only_cluster_imports_ray, {"trial.py": "'d'\nif TYPE_CHECKING:\n    pass\nelse:\n    import ray"}),
    (only_analysis_imports_matplotlib, {"metrics.py": "'d'\nimport matplotlib.pyplot as plt"}),
    (records_need_numpy_and_keys_only, {"records.py": "'d'\nimport torch"}),
    (records_need_numpy_and_keys_only, {"records.py": "'d'\nfrom . import trial"}),
    (records_need_numpy_and_keys_only, {"keys.py": "'d'\nimport numpy"}),
    (analysis_reads_only_the_store, {"analysis/tables.py": "'d'\nimport torch"}),
    (analysis_reads_only_the_store, {"analysis/tables.py": "'d'\nfrom d3m_ray.training import fine_tune"}),
    (trials_know_nothing_of_attribution, {"trial.py": "'d'\nfrom d3m_ray.attribution import trak"}),
    (trials_know_nothing_of_attribution, {"training.py": "'d'\nfrom d3m_ray import alignment", "alignment.py": "'d'"}),
    (
        trials_know_nothing_of_attribution,
        {"trial.py": "'d'\nimport d3m_ray.model", "model.py": "'d'\nfrom .attribution.trak import score"},
    ),
    (only_experiment_knows_the_order, {"selection.py": "'d'\nfrom d3m_ray import attribution, trial"}),
    (only_experiment_knows_the_order, {"attribution/trak.py": "'d'\nfrom d3m_ray.trial import run_trial"}),
    (
        only_experiment_knows_the_order,
        {"cluster/sweep.py": "'d'\nfrom .. import trial\nfrom ..attribution import trak"},
    ),
    (only_the_command_line_shows_what_the_cluster_did, {"cluster/sweep.py": "'d'\nfrom ..analysis import tables"}),
    (only_the_command_line_shows_what_the_cluster_did, {"end.py": "'d'\nfrom d3m_ray import cluster, analysis"}),
    (no_circles, {"keys.py": "'d'\ndef f():\n    from d3m_ray import records"}),
    (no_circles, {"attribution/trak.py": "'d'\nfrom d3m_ray.attribution import METHODS"}),
    (modules_are_short, {"trial.py": "'d'\n" * (MAX_MODULE_LINES + 1)}),
    (modules_have_docstrings, {"cluster/__init__.py": ""}),
    (names_say_something, {"analysis/utils.py": "'d'"}),
    (names_say_something, {"common/__init__.py": "'d'"}),
]


def _write_package(root: Path, files: Mapping[str, str]) -> dict[str, Module]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_package(root)


@pytest.fixture(scope="module")
def modules() -> dict[str, Module]:
    return read_package(ROOT / PACKAGE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps(rule: Rule, modules: Modules) -> None:
    assert rule(modules) == []


def test_every_layer_of_the_package_is_seen(modules: Modules) -> None:
    """Else a rule could hold because nothing was read."""
    users = {name: {m.name for m in modules.values() if name in m.third_parties} for name in ("ray", "matplotlib")}
    assert any(name.startswith("cluster.") for name in users["ray"])
    assert any(name.startswith("analysis.") for name in users["matplotlib"])
    assert {"records", "trial", "training", "experiment"} <= set(modules)
    assert {"attribution", "trial"} <= _reachable(modules, "experiment")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_lawful_package_passes(rule: Rule, tmp_path: Path) -> None:
    assert rule(_write_package(tmp_path, LAWFUL)) == []


@pytest.mark.parametrize(
    ("rule", "change"), UNLAWFUL, ids=[f"{rule.__name__}-{number}" for number, (rule, _) in enumerate(UNLAWFUL)]
)
def test_a_violation_is_caught(rule: Rule, change: dict[str, str], tmp_path: Path) -> None:
    assert rule(_write_package(tmp_path, {**LAWFUL, **change})) != []


def test_every_rule_has_a_violation_that_it_catches() -> None:
    assert {rule for rule, _ in UNLAWFUL} == set(RULES)


def test_sweeps_are_declarations() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in (ROOT / "sweeps").glob("*.py")}
    assert "demo.py" in lines
    assert [name for name, count in lines.items() if count > MAX_SWEEP_LINES] == []
