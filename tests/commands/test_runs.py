"""`d3m-ray run`, `plan`, `lds` and `leaderboard`: on a corpus by its name, or on the record of an experiment."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_towns import make_towns

import d3m_ray as d3m
from d3m_ray.__main__ import main
from d3m_ray.analysis.figures import catalogue
from d3m_ray.commands import runs, sweeps
from d3m_ray.experiment.plan import record_plan
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare
from d3m_ray.store.store import Store

ROOT = Path(__file__).resolve().parents[2]
SMALL = ("--num-train", "48", "--num-val", "24", "--num-test", "24", "--num-epochs", "1", "--seeds", "0", "1")
FLAGS = (*SMALL, "--methods", "trak", "random", "--num-removed", "0", "6", "--no-store-texts", "--engine", "local")


def status_of(*arguments: str) -> int:
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of an experiment that was run by its corpus's name."""
    store = tmp_path_factory.mktemp("runs") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "all_figures", lambda results: {})
        assert status_of("run", "planted", "--store", str(store), *FLAGS) == 0
    (path,) = (store / "experiments").iterdir()
    return path


@pytest.fixture
def parsed_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What a command line's flags come to; nothing of it is run."""

    def parse(*arguments: str) -> Any:
        got: list[Any] = []
        monkeypatch.setattr(sweeps, "_show_plan", lambda config, defaults: got.append(config) or 0)
        monkeypatch.setattr(sweeps, "_lds_studies", lambda config, defaults, studies: got.append(config) or 0)
        assert status_of(*arguments) == 0
        return got[0]

    return parse


def test_a_finished_run_again_loads_nothing_that_computes(record: Path) -> None:
    """Neither torch, nor Ray, nor what draws: all is stored, and the figures are up to date."""
    arguments = ["run", "planted", "--store", str(record.parents[1]), *FLAGS[:-1], "ray"]
    script = (
        "import sys\nfrom d3m_ray.__main__ import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit as ended:\n    print(ended.code)\n"
        "print(sorted({'torch', 'transformers', 'tokenizers', 'ray', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    called = [sys.executable, "-c", script]
    shown = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout.splitlines()[-2:] == ["0", "[]"]
    assert "8 trials, 8 of them stored before; 0 fits to train" in shown.stderr


# --- a corpus by its name ---------------------------------------------------------------------------------------------


def test_a_run_stores_every_trial_and_shows_the_table(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = record.parents[1]
    trials = d3m.read_trials(store, record.stem)
    assert len(trials.groupby(["method", "num_removed", "seed"])) == 8
    assert status_of("plan", "planted", "--store", str(store), *FLAGS) == 0
    assert f"{record.stem}: 8 trials, 8 of them stored; 0 fits to train" in capsys.readouterr().out


def test_a_plan_leaves_out_the_numbers_that_a_run_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the demonstration's own numbers most are above half of 48."""
    assert status_of("plan", "planted", "--store", str(tmp_path), *SMALL, "--methods", "random") == 0
    said = capsys.readouterr()
    assert "--num-removed is 0 5% 10% 20% here" in said.err
    assert "8 trials, 0 of them stored" in said.out
    numbers = ("--num-removed", "0", "60")
    assert status_of("plan", "planted", "--store", str(tmp_path), *SMALL, "--methods", "random", *numbers) == 2


@pytest.mark.parametrize("command", runs.COMMANDS)
def test_a_command_alone_says_which_corpora_there_are(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--help",), ("-h",)):
        assert status_of(command, *arguments) == 0
        said = capsys.readouterr().out
        assert said.startswith(f"usage: d3m-ray {command} CORPUS [OPTIONS]")
        assert re.search(r"^  planted +made-up text", said, re.MULTILINE)
        assert f"d3m-ray {command} planted" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "plantet"), "the corpus is one of 'toxigen', 'hatexplain', 'planted', 'own'; received 'plantet' (did"),
        (("rum", "planted"), "the command is one of 'run', 'plan', 'lds'"),
        (("run", "planted", "--num-epoch", "0"), "--num-epochs"),
        (("plan", "own", "--store", "nowhere"), "--data"),
        (("run", "planted", "--engine", "lokal"), "'local'"),
    ],
)
def test_what_is_unknown_is_refused_with_what_is_meant(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status_of(*arguments) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert len(shown.splitlines()) == 1


def test_the_demonstration_is_what_the_script_runs(parsed_to: Callable[..., Any]) -> None:
    config = parsed_to("plan", "planted")
    assert (config.model, config.store, config.seeds) == ("tiny", "results/demo", (0, 1, 2, 3, 4))
    assert config.training == runs.FOR_TINY
    own = parsed_to("plan", "own", "--data", "reviews")
    assert (type(own.corpus), own.data, own.num_removed) == (d3m.Own, Path("reviews"), (0, "5%", "10%", "20%"))


def test_a_study_judges_its_own_methods_for_few_epochs(parsed_to: Callable[..., Any]) -> None:
    lds = parsed_to("lds", "hatexplain")
    assert (lds.experiment.methods, lds.experiment.training) == (runs.LDS_METHODS, runs.HUNDREDS_OF_FITS)
    assert lds.removal_shares == ("1%", "5%", "10%")
    board = parsed_to("leaderboard", "planted")
    assert (board.experiment.methods, board.experiment.training) == (runs.BOARD_METHODS, runs.FOR_TINY)


# --- the record of an experiment --------------------------------------------------------------------------------------


def test_a_repeated_record_trains_nothing_and_stores_no_text(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "all_figures", lambda results: {})
    store = record.parents[1]
    before = {path: path.stat().st_mtime_ns for path in (store / "fits").iterdir()}
    assert status_of("plan", str(record)) == 0
    assert "8 trials, 8 of them stored; 0 fits to train" in capsys.readouterr().out
    assert status_of("run", str(record), "--engine", "local") == 0
    assert "8 trials, 8 of them stored before; 0 fits to train" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in (store / "fits").iterdir()} == before
    assert list((store / "experiments").iterdir()) == [record]
    assert d3m.read_examples(store, record.stem)["text"].isna().all()


def test_a_record_may_be_gone_on_with(record: Path, parsed_to: Callable[..., Any]) -> None:
    config = parsed_to("plan", str(record), "--seeds", "0", "1", "2")
    assert (config.experiment, config.seeds, config.methods) == (record.stem, (0, 1, 2), ("trak", "random"))
    assert (config.store, config.num_removed) == (str(record.parents[1]), (0, 6))


def test_a_record_is_found_from_within_its_store(
    record: Path, parsed_to: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(record.parents[1])
    assert parsed_to("plan", f"experiments/{record.name}").store == "."


def test_a_record_names_its_store_whatever_the_environment_presets(
    record: Path, parsed_to: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Also one in the folder that is the default of --store."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(record.parents[1], "results")
    monkeypatch.setenv("D3M_RAY_STORE", "elsewhere")
    place = f"results/experiments/{record.name}"
    assert parsed_to("plan", place).store == "results"
    assert parsed_to("plan", place, "--store", "named").store == "named"
    assert parsed_to("lds", place).experiment.store == "results"


def recorded(config: d3m.ExperimentConfig, root: Path) -> str:
    """The record that a run of this configuration begins with."""
    prepared = prepare(config, Store(root), Progress())
    record_plan(prepared, Progress())
    return str(root / "experiments" / f"{prepared.context.experiment}.json")


PLANTED = d3m.ExperimentConfig(
    d3m.Planted(num_train=48, num_val=24, num_test=24), model="tiny", methods=("trak", "random"), num_removed=(0, 30)
)


@pytest.mark.parametrize("settings", [{}, {"protocol": "thesis", "seeds": (4, 5)}, {"num_removed": (36,)}])
def test_a_record_is_repeated_as_it_was_asked_for(
    settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the thesis did besides, and also the numbers that take more than half of train."""
    config = dataclasses.replace(PLANTED, **settings)
    path = recorded(config, tmp_path)
    num_trials = 2 * len(config.num_removed) * len(config.seeds)
    assert status_of("plan", path) == 0
    assert f"{num_trials} trials, 0 of them stored" in capsys.readouterr().out


def test_a_record_that_grew_in_parts_says_what_more_its_repetition_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = dataclasses.replace(PLANTED, experiment="named", seeds=(0, 1, 2))
    recorded(named, tmp_path)
    path = recorded(dataclasses.replace(named, methods=("random", "balanced"), seeds=(3,)), tmp_path)
    assert status_of("plan", path) == 0
    said = capsys.readouterr()
    assert "named was asked for in parts" in said.err
    assert "5 trials more than its plan" in said.err  # trak under the fourth seed, balanced under the first three
    assert "20 trials, 0 of them stored" in said.out


def test_a_study_of_a_record_in_rounds_judges_what_the_first_went_by(
    tmp_path: Path, parsed_to: Callable[..., Any]
) -> None:
    selection = d3m.SelectionConfig(rounds=2)
    path = recorded(dataclasses.replace(PLANTED, selection=selection), tmp_path)
    assert parsed_to("lds", path).experiment.selection.rounds == 1


def test_a_study_of_what_was_aligned_on_test_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = recorded(dataclasses.replace(PLANTED, protocol="thesis", experiment="old"), tmp_path)
    assert status_of("lds", path) == 2
    assert "old aligns on test, as the thesis did: name its corpus" in capsys.readouterr().err


@pytest.mark.parametrize("entry", ["corpus", "model", "num_checkpoints", "training"])
def test_a_record_that_lacks_a_setting_is_refused(
    entry: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(recorded(PLANTED, tmp_path))
    document = json.loads(path.read_text())
    of = document["configuration"]
    (of["command"] if entry in of["command"] else of).pop(entry)
    path.write_text(json.dumps(document))
    assert status_of("run", str(path)) == 2
    said = capsys.readouterr().err
    assert re.search(rf"the record of \S+ holds every setting .*lacks one.* \(KeyError: '{entry}'\)", said)


def test_a_study_of_a_record_is_of_its_methods_and_has_a_name_of_its_own(
    record: Path, parsed_to: Callable[..., Any]
) -> None:
    for command in ("lds", "leaderboard"):
        experiment = parsed_to(command, str(record)).experiment
        assert (experiment.methods, experiment.experiment) == (("trak", "random"), None)
        assert experiment.training == dataclasses.replace(runs.FOR_TINY, num_epochs=1)


def test_a_study_of_a_record_without_methods_is_refused(
    record: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = d3m.ExperimentConfig("planted", methods=("random", "balanced"), experiment="bare")
    monkeypatch.setattr(runs, "config_of", lambda experiment, store: config)
    assert status_of("lds", str(record)) == 2
    assert "bare has the arms random, balanced, none of which goes by one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    ["demo.json", "store/demo.json"]
    + [f"store/experiments/{name}.json" for name in ("deep/demo", "demo", "my demo", "")],
)
def test_a_path_that_leads_to_no_record_is_refused(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status_of("run", path) == 2
    said = capsys.readouterr().err
    assert "the record of an experiment is STORE/experiments/NAME.json" in said
    assert path in said
    assert list(tmp_path.iterdir()) == []


# --- plug-ins ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LengthConfig:
    """Settings of the length."""

    sharpness: float = 2.0
    """How much a token counts."""


@dataclass(frozen=True)
class TownOptions:
    """Towns."""

    size: int = 48
    """Train rows."""


@pytest.mark.usefixtures("own_registries")
def test_a_plug_in_s_settings_and_options_are_flags(
    parsed_to: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    d3m.corpus("towns", options=TownOptions, num_removed=(0, 4))(make_towns)
    d3m.method("my_length", settings=LengthConfig)(lambda inputs, settings, pool: np.zeros((1, 1)))
    flags = ("--size", "56", "--my-length-sharpness", "3", "--methods", "my_length", "random")
    config = parsed_to("plan", "towns", *flags)
    assert (config.corpus, config.num_removed) == (TownOptions(56), (0, 4))
    assert config.plugins == {"my_length": LengthConfig(3.0)}
    assert parsed_to("lds", "towns", *flags).experiment.plugins == config.plugins
    assert parsed_to("plan", "towns").plugins == {}

    assert status_of("run") == 0
    assert re.search(r"^  towns +Towns, fine or grey$", capsys.readouterr().out, re.MULTILINE)
    assert status_of("run", "towns", "--help") == 0
    shown = capsys.readouterr().out
    for told in ("--size INT", "Train rows. (default: 48)", "--my-length-sharpness FLOAT", "How much a token counts"):
        assert told in shown
