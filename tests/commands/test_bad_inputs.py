"""Every bad input ends with its exit status and one line that says what is wrong, joins no cluster, leaves nothing.

The inputs stand in `bad_inputs/*.toml`, a table each:

    [a-name-that-says-what-is-wrong]
    arguments = "--learning-rate inf"     what is given; {here} is an empty folder of the test's own
    says = ["finite", "received inf"]     what the line contains
    command = "sweep"                     or lds, or status
    status = 2
    environment = { D3M_RAY_STORE = "" }  variables that are set
    files = { "data/train.csv" = "..." }  files that are in {here}
    given = "a_file"                      a function of this module that puts more into {here}
"""

import os
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray

from d3m_ray.__main__ import main
from d3m_ray.cluster import addresses
from d3m_ray.commands.sweeps import run_lds_sweep, run_leaderboard_sweep, run_sweep
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.training.settings import TrainingConfig

TABLES = Path(__file__).parent / "bad_inputs"
PLANTED = ExperimentConfig(
    Planted(num_train=160, num_val=40, num_test=40),
    model="tiny",
    num_removed=(0, 10),
    training=TrainingConfig(num_epochs=1),
)
HATEXPLAIN = ExperimentConfig(Hatexplain(), model="tiny", methods=("random",))
COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "sweep": lambda arguments: run_sweep("a test", PLANTED, arguments),
    "hatexplain": lambda arguments: run_sweep("a test", HATEXPLAIN, arguments),
    "lds": lambda arguments: run_lds_sweep("a test", LdsConfig(PLANTED, num_subsets=5), arguments),
    "leaderboard": lambda arguments: run_leaderboard_sweep("a test", LeaderboardConfig(PLANTED), arguments),
    "status": lambda arguments: main(["status", *arguments]),
    "d3m_ray": main,
}


@dataclass(frozen=True)
class BadInput:
    """A row of the tables."""

    arguments: str
    says: list[str]
    command: str = "sweep"
    status: int = 2
    environment: Mapping[str, str] | None = None
    files: Mapping[str, str] | None = None
    given: str | None = None


def a_folder_that_is_closed(here: Path) -> None:
    """Not even for root, who may write everywhere else: a folder of the kernel's."""
    (here / "closed").symlink_to("/proc/1")


def a_store_with_an_experiment(here: Path) -> None:
    folder = here / "store" / "experiments"
    folder.mkdir(parents=True)
    (folder / "taken.json").write_text('{"configuration": {"dataset": "other", "model": "tiny"}, "plan": []}')


def a_store_of_dangling_links(here: Path) -> None:
    (here / "store").mkdir()
    (here / "store" / ".unfinished").symlink_to(here / "nothing")


def load_cases() -> dict[str, BadInput]:
    """The tables of every file; a name stands once."""
    cases: dict[str, BadInput] = {}
    for path in sorted(TABLES.glob("*.toml")):
        for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
            assert name not in cases, f"{path.name} repeats {name}"
            cases[name] = BadInput(**table)
    return cases


CASES = load_cases()


def everything_below(folder: Path) -> dict[str, int | None]:
    """Every path below a folder, and its time of change where it is a file."""
    found = (path for path in folder.rglob("*") if not path.is_symlink())
    return {str(path): path.stat().st_mtime_ns if path.is_file() else None for path in found}


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    """A case that would join or start a cluster fails."""

    def must_not_begin(*_: object, **__: object) -> None:
        raise AssertionError("a cluster was joined or started")

    monkeypatch.setattr(ray, "init", must_not_begin)
    monkeypatch.setattr(addresses, "ANSWER_SECONDS", 1)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_bad_input_is_refused(case: BadInput, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("D3M_RAY_", "RAY_ADDRESS", "RAY_TMPDIR")):
            monkeypatch.delenv(name)
    for name, value in (case.environment or {}).items():
        monkeypatch.setenv(name, value.format(here=tmp_path))
    for name, content in (case.files or {}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    if case.given is not None:
        globals()[case.given](tmp_path)
    before = everything_below(tmp_path)

    arguments = [word.format(here=tmp_path) for word in shlex.split(case.arguments)]
    if case.command not in ("status", "d3m_ray") and "--store" not in arguments and "D3M_RAY_STORE" not in os.environ:
        arguments += ["--store", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as ended:
        COMMANDS[case.command](arguments)

    said = capsys.readouterr()
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.err.splitlines()[-1] == line
    assert "Traceback" not in said.err
    assert said.out == ""
    for words in case.says:
        assert words.format(here=tmp_path) in line
    assert ended.value.code == case.status
    assert everything_below(tmp_path) == before


def test_there_are_many():
    assert len(CASES) >= 60
