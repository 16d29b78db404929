"""Plug-ins that packages bring: each is imported, and one that is broken is named and stops nothing."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from d3m_ray import entry_points
from d3m_ray.__main__ import main
from d3m_ray.commands import terminal
from d3m_ray.commands.api import plan
from d3m_ray.data.planted import Planted
from d3m_ray.entry_points import GROUP, load_plugins
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.selection.arms import ARMS

pytestmark = pytest.mark.usefixtures("own_registries")

MODULES = {
    "plug_whole": "import d3m_ray\nd3m_ray.arm('brought')(lambda evidence, num_removed, seed: range(num_removed))\n",
    "plug_broken": "raise RuntimeError('no licence\\nfound')\n",
    "plug_ending": "import sys\nsys.exit('bye')\n",
    "plug_taken": "import d3m_ray\nd3m_ray.method('trak')\n",
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The modules, as if packages had named them, one that is missing among them."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    points = [EntryPoint(name.removeprefix("plug_"), name, GROUP) for name in (*MODULES, "plug_missing")]
    monkeypatch.setattr(entry_points, "entry_points", lambda group: points if group == GROUP else [])
    for cached in (load_plugins, terminal.tell_of_broken_plugins):
        cached.cache_clear()
    yield
    for cached in (load_plugins, terminal.tell_of_broken_plugins):
        cached.cache_clear()
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.usefixtures("installed")
def test_what_is_broken_is_named_and_the_rest_is_there() -> None:
    assert load_plugins() == (
        "the plug-in broken (plug_broken) is left out: RuntimeError: no licence found",
        "the plug-in ending (plug_ending) is left out: SystemExit: bye",
        "the plug-in missing (plug_missing) is left out: ModuleNotFoundError: No module named 'plug_missing'",
        "the plug-in taken (plug_taken) is left out: InputError: the name of an attribution method is its own; "
        "'trak' is taken: choose another",
    )
    assert "brought" in ARMS


@pytest.mark.usefixtures("installed")
def test_a_configuration_knows_what_a_package_brought() -> None:
    assert ExperimentConfig("planted", methods=("brought",)).methods == ("brought",)


@pytest.mark.usefixtures("installed")
def test_commands_warn_once(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.tell_of_broken_plugins()
    terminal.tell_of_broken_plugins()
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert lines[0] == "warning: the plug-in broken (plug_broken) is left out: RuntimeError: no licence found"


@pytest.mark.usefixtures("installed")
def test_a_command_warns_before_it_says_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "plantet"])
    assert ended.value.code == 2
    *warnings, error = capsys.readouterr().err.splitlines()
    assert warnings == [f"warning: {line}" for line in load_plugins()]
    assert error.startswith("error: the corpus is one of")


@pytest.mark.usefixtures("installed")
def test_a_call_from_python_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = ExperimentConfig(Planted(48, 24, 24), model="tiny", methods=("brought",), num_removed=(0, 6))
    assert set(plan(config, tmp_path).trials["method"]) == {"brought"}
    assert capsys.readouterr().err.startswith(f"warning: {load_plugins()[0]}\n")
