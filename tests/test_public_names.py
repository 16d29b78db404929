"""`import d3m_ray`: its names, each loaded when it is asked for, and what is not loaded before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import d3m_ray

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("ray", "torch", "transformers", "datasets", "trak", "kronfluence", "sklearn", "scipy", "matplotlib", "jinja2")


def loaded(script: str) -> set[str]:
    """The third-party packages at the top that a script has loaded when it ends, however it ends."""
    lines = [
        "import sys, contextlib, io",
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):",
    ]
    lines += [f"    {line}" for line in script.splitlines()]
    lines.append("print(*sorted({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)))")
    called = [sys.executable, "-c", "\n".join(lines)]
    shown = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return set(shown.stdout.split())


def test_importing_the_package_loads_nothing_else() -> None:
    assert loaded("import d3m_ray") & {"numpy", "pandas", "pyarrow", "tyro", *HEAVY} == set()


def test_reading_a_store_loads_neither_torch_nor_ray() -> None:
    script = "import d3m_ray\nassert len(d3m_ray.read_trials('tests/golden/store_0.1.0'))"
    assert loaded(script) & set(HEAVY) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "planted", "--help"], ["rum"]])
def test_help_loads_nothing_that_computes(arguments: list[str]) -> None:
    """So that it is there at once."""
    assert loaded(f"from d3m_ray.__main__ import main\nmain({arguments})") & set(HEAVY) == set()


def test_a_configuration_is_made_without_what_computes() -> None:
    script = "import d3m_ray as d3m\nd3m.ExperimentConfig(d3m.Planted(), methods=('trak', 'jtt'))\nd3m.method, d3m.arm"
    assert loaded(script) & set(HEAVY) == set()


def test_every_public_name_is_there_and_documented() -> None:
    assert set(d3m_ray.__all__) == {"__version__", *d3m_ray._HOME_OF}
    assert set(d3m_ray.__all__) <= set(dir(d3m_ray))
    for name in d3m_ray._HOME_OF:
        value = getattr(d3m_ray, name)
        assert value.__module__ == f"d3m_ray.{d3m_ray._HOME_OF[name]}", f"{name} is defined elsewhere"
        assert value.__doc__
    with pytest.raises(AttributeError, match="module 'd3m_ray' has no attribute 'nothing'"):
        _ = d3m_ray.nothing


def test_type_checkers_see_the_same_names() -> None:
    """The imports below TYPE_CHECKING are those that `__getattr__` does."""
    tree = ast.parse(Path(d3m_ray.__file__).read_text(encoding="utf-8"))
    imports = [
        node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("d3m")
    ]
    seen = {alias.name: (node.module or "").removeprefix("d3m_ray.") for node in imports for alias in node.names}
    assert seen == {**d3m_ray._HOME_OF, "__version__": "version"}
