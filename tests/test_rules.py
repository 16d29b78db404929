"""The boundaries between the layers, held by parsing every import, those inside functions included."""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "d3m_ray"
ANALYSIS_MAY_IMPORT = ("analysis", "keys", "metrics", "records", "store", "version", "wording")
LAYERS = (
    *("keys", "errors", "version", "records", "pool", "waiting", "meter", "wording", "rules", "entry_points"),
    *("metrics", "data", "training", "attribution", "selection", "store", "trials", "experiment", "plugins"),
    *("cluster", "analysis", "commands", "made_up", "testing", "__main__", ""),
)
"""The folders and files at the top, from the ground up: each imports what stands before it, and no later one."""
NAMES_OF_METHODS = "attribution.registry"  # which anyone may know, since it loads none of them
BANNED_NOUNS = {
    "BaseModel": "PretrainedModel, or a checkpoint",
    "Helper": "what it does",
    "Manager": "what it does",
    "Task": "Step: what a pass over shards shares",
}
"""Words of a class's name, and what stands in their place. A subclass of a library's class may bear the library's."""
HOMELY = re.compile(r"\b(anew|foretell|foretells|foretold|in vain|mend|mends|mended|mending)\b", re.IGNORECASE)
"""Words for which a reader of English as a second language needs a dictionary: again, predict, to no effect, fix."""
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
    is_package: bool
    has_code: bool
    """Whether anything stands in it besides its docstring."""
    classes: Mapping[str, tuple[str, ...]]
    """By the name of a class that it defines, the names of what that is derived from."""

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
        docstring, is_package = ast.get_docstring(tree), path.name == "__init__.py"
        has_code = len(tree.body) > (docstring is not None)
        classes = {
            node.name: tuple(map(ast.unparse, node.bases)) for node in tree.body if isinstance(node, ast.ClassDef)
        }
        modules[name] = Module(name, imports, docstring, len(text.splitlines()), is_package, has_code, classes)
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
    for name in (m.name for m in modules.values() if m.within("trials", "training")):
        loaded = _reachable(modules, name)
        found += [
            f"{name} loads {other}" for other in sorted(loaded) if modules[other].within("attribution", "selection")
        ]
    return found


def only_experiment_knows_the_order(modules: Modules) -> list[str]:
    """Attribution and trials meet in experiment/; elsewhere nothing loads both, but through it."""
    return _where_both_meet(modules, "attribution", "trials", "experiment")


def only_the_command_line_shows_what_the_cluster_did(modules: Modules) -> list[str]:
    """The sweep's command line runs on the cluster and then has the results drawn; nothing else loads both."""
    return _where_both_meet(modules, "cluster", "analysis", "commands")


def _where_both_meet(modules: Modules, one: str, other: str, only_in: str) -> list[str]:
    found = []
    for name in (m.name for m in modules.values() if not m.within(only_in)):
        loaded = {name, *_reachable(modules, name, without=only_in)} - {NAMES_OF_METHODS}
        if all(any(modules[m].within(end) for m in loaded) for end in (one, other)):
            found.append(f"{name} loads {one} and {other}")
    return sorted(found)


def imports_run_downward(modules: Modules) -> list[str]:
    """No folder imports one that stands above it; a folder or file at the top that has no place is a violation."""
    places = {name: place for place, name in enumerate(LAYERS)}
    tops = {name: name.partition(".")[0] for name in modules}
    lost = sorted({f"{top} has no place in LAYERS" for top in tops.values() if top not in places})
    return lost or [
        f"{module.name} imports {other}"
        for module in modules.values()
        for other in sorted(module.own)
        if places[tops[other]] > places[tops[module.name]]
    ]


def packages_hold_no_logic(modules: Modules) -> list[str]:
    """An `__init__.py` says in its docstring what the folder is for; the package's own names its public functions."""
    return [m.name for m in modules.values() if m.name and m.is_package and m.has_code]


def no_circles(modules: Modules) -> list[str]:
    return [name for name, module in modules.items() if any(name in _reachable(modules, own) for own in module.own)]


def modules_are_short(modules: Modules) -> list[str]:
    return [f"{m.name} has {m.num_lines} lines" for m in modules.values() if m.num_lines > MAX_MODULE_LINES]


def modules_have_docstrings(modules: Modules) -> list[str]:
    return [m.name for m in modules.values() if not m.docstring]


def names_say_something(modules: Modules) -> list[str]:
    return [name for name in modules if NAMES_THAT_SAY_NOTHING & set(name.split("."))]


def classes_have_the_projects_nouns(modules: Modules) -> list[str]:
    return [
        f"{module.name} has {name}: say {instead}"
        for module in modules.values()
        for name, parents in module.classes.items()
        for noun, instead in BANNED_NOUNS.items()
        if name.endswith(noun) and noun not in parents
    ]


def a_class_is_defined_once(modules: Modules) -> list[str]:
    places: dict[str, list[str]] = {}
    for module in modules.values():
        for name in module.classes:
            places.setdefault(name, []).append(module.name)
    return [f"{name} is in {' and '.join(found)}" for name, found in places.items() if len(found) > 1]


RULES: tuple[Rule, ...] = (
    only_cluster_imports_ray,
    only_analysis_imports_matplotlib,
    records_need_numpy_and_keys_only,
    analysis_reads_only_the_store,
    trials_know_nothing_of_attribution,
    only_experiment_knows_the_order,
    only_the_command_line_shows_what_the_cluster_did,
    imports_run_downward,
    packages_hold_no_logic,
    no_circles,
    modules_are_short,
    modules_have_docstrings,
    names_say_something,
    classes_have_the_projects_nouns,
    a_class_is_defined_once,
)

# --- the tests --------------------------------------------------------------------------------------------------------

LAWFUL = {
    "__init__.py": "'d'",
    "keys.py": "'d'\nimport hashlib",
    "version.py": "'d'",
    "records.py": "'d'\nimport numpy as np\nfrom d3m_ray.keys import content_hash",
    "training/__init__.py": "'d'",
    "training/fine_tuning.py": "'d'\nimport torch\nfrom d3m_ray.records import Examples",
    "trials/__init__.py": "'d'",
    "trials/trial.py": "'d'\nfrom d3m_ray.training.fine_tuning import fit\nif TYPE_CHECKING:\n    import ray",
    "experiment/__init__.py": "'d'",
    "experiment/story.py": "'d'\nfrom d3m_ray.attribution import registry\nfrom d3m_ray.trials import trial",
    "commands/__init__.py": "'d'",
    "commands/sweeps.py": (
        "'d'\nfrom d3m_ray.experiment.story import run\nfrom d3m_ray.cluster.sweep import fits\n"
        "from d3m_ray.analysis.tables import table"
    ),
    "attribution/__init__.py": "'d'",
    "attribution/registry.py": "'d'\nfrom d3m_ray.attribution.trak import score",
    "attribution/trak.py": "'d'\nfrom d3m_ray.records import Examples",
    "analysis/__init__.py": "'d'",
    "analysis/tables.py": "'d'\nimport matplotlib\nfrom d3m_ray.store import store",
    "selection/__init__.py": "'d'",
    "store/__init__.py": "'d'",
    "store/store.py": "'d'\nimport pyarrow",
    "cluster/__init__.py": "'d'",
    "cluster/sweep.py": "'d'\nfrom ray import tune\nfrom d3m_ray.trials.trial import run_trial",
}

UNLAWFUL = [
    (only_cluster_imports_ray, {"trials/trial.py": "'d'\nimport ray"}),
    (only_cluster_imports_ray, {"trials/trial.py": "'d'\ndef f():\n    from ray.tune import report"}),
    (only_cluster_imports_ray, {"trials/trial.py": "'d'\nimport importlib\nimportlib.import_module('ray')"}),
    (only_cluster_imports_ray, {"trials/trial.py": "'d'\nif TYPE_CHECKING:\n    pass\nelse:\n    import ray"}),
    (only_analysis_imports_matplotlib, {"store/store.py": "'d'\nimport matplotlib.pyplot as plt"}),
    (records_need_numpy_and_keys_only, {"records.py": "'d'\nimport torch"}),
    (records_need_numpy_and_keys_only, {"records.py": "'d'\nfrom .trials import trial"}),
    (records_need_numpy_and_keys_only, {"keys.py": "'d'\nimport numpy"}),
    (analysis_reads_only_the_store, {"analysis/tables.py": "'d'\nimport torch"}),
    (analysis_reads_only_the_store, {"analysis/tables.py": "'d'\nfrom d3m_ray.training.fine_tuning import fit"}),
    (trials_know_nothing_of_attribution, {"trials/trial.py": "'d'\nfrom d3m_ray.attribution import trak"}),
    (
        trials_know_nothing_of_attribution,
        {
            "training/fine_tuning.py": "'d'\nfrom d3m_ray.selection import alignment",
            "selection/alignment.py": "'d'",
        },
    ),
    (
        trials_know_nothing_of_attribution,
        {
            "trials/trial.py": "'d'\nimport d3m_ray.training.model",
            "training/model.py": "'d'\nfrom ..attribution.trak import score",
        },
    ),
    (
        only_experiment_knows_the_order,
        {"cluster/sweep.py": "'d'\nfrom d3m_ray.attribution import trak\nfrom d3m_ray.trials import trial"},
    ),
    (only_experiment_knows_the_order, {"attribution/trak.py": "'d'\nfrom d3m_ray.trials.trial import run_trial"}),
    (
        only_experiment_knows_the_order,
        {"cluster/sweep.py": "'d'\nfrom ..trials import trial\nfrom ..attribution import trak"},
    ),
    (only_the_command_line_shows_what_the_cluster_did, {"cluster/sweep.py": "'d'\nfrom ..analysis import tables"}),
    (only_the_command_line_shows_what_the_cluster_did, {"__main__.py": "'d'\nfrom d3m_ray import cluster, analysis"}),
    (imports_run_downward, {"store/store.py": "'d'\nfrom d3m_ray.trials import trial"}),
    (imports_run_downward, {"sideways.py": "'d'"}),
    (packages_hold_no_logic, {"store/__init__.py": "'d'\nfrom d3m_ray.store.store import Store"}),
    (no_circles, {"keys.py": "'d'\ndef f():\n    from d3m_ray import records"}),
    (no_circles, {"attribution/trak.py": "'d'\nfrom d3m_ray.attribution.registry import METHODS"}),
    (modules_are_short, {"trials/trial.py": "'d'\n" * (MAX_MODULE_LINES + 1)}),
    (modules_have_docstrings, {"cluster/__init__.py": ""}),
    (names_say_something, {"analysis/utils.py": "'d'"}),
    (names_say_something, {"common/__init__.py": "'d'"}),
    (classes_have_the_projects_nouns, {"attribution/trak.py": "'d'\nclass GradientTask: ..."}),
    (a_class_is_defined_once, {"keys.py": "'d'\nclass Key: ...", "version.py": "'d'\nclass Key: ..."}),
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
    assert {"records", "trials.trial", "training.fine_tuning", "experiment.story"} <= set(modules)
    assert {"attribution.registry", "trials.trial"} <= _reachable(modules, "experiment.story")


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


def test_words_are_the_standard_ones() -> None:
    sources = [
        *ROOT.glob("docs/**/*.md"),
        *(path for folder in ("d3m_ray", "sweeps") for path in ROOT.glob(f"{folder}/**/*.py")),
    ]
    found = {path.name: HOMELY.findall(path.read_text(encoding="utf-8")) for path in [ROOT / "README.md", *sources]}
    assert {name: words for name, words in found.items() if words} == {}
