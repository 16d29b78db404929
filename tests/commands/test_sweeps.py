"""The command line: what is wrong with an input is said before anything that takes long is begun."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from d3m_ray.__main__ import main
from d3m_ray.analysis import output
from d3m_ray.analysis.figures import catalogue
from d3m_ray.cluster import engine
from d3m_ray.commands.flags import with_environment, with_shares
from d3m_ray.commands.sweeps import run_lds_sweep, run_sweep
from d3m_ray.data.planted import Planted
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.plan import record_plan
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.story import prepare
from d3m_ray.experiment.studies import LdsConfig
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.trials import engine as local_engine
from d3m_ray.trials.engine import LocalEngine
from d3m_ray.trials.settings import ExecutionConfig

PLANTED = ExperimentConfig(Planted(num_train=160, num_val=40, num_test=40), model="tiny", num_removed=(0, 10))
TOXIGEN = ExperimentConfig(Toxigen(), methods=("random",))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def no_ray(monkeypatch):
    """A test that would join or start a cluster fails."""

    def must_not_join(*_: object) -> None:
        raise AssertionError("a cluster was joined")

    monkeypatch.setattr(engine, "_join", must_not_join)


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize(("run", "config"), [(run_sweep, TOXIGEN), (run_lds_sweep, LdsConfig(TOXIGEN))])
def test_a_wrong_corpus_is_refused_before_ray(run, config, tmp_path, capsys):
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.csv").write_text("text,label,group\na fine day,2,amber\n")
    arguments = ["--data", str(tmp_path), "--store", str(tmp_path / "store"), "--model", "tiny"]
    with pytest.raises(SystemExit) as ended:
        run("a test", config, arguments)
    assert ended.value.code == 2
    assert "a label is 0 or 1, received '2'" in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


@pytest.mark.usefixtures("no_ray")
def test_the_name_of_another_experiment_is_refused_before_ray(tmp_path, capsys):
    store = Store(tmp_path)
    record_plan(prepare(PLANTED, store, Progress()), Progress())
    (name,) = store.read_experiments()
    arguments = ["--store", str(tmp_path), "--experiment", name, "--num-epochs", "2"]
    with pytest.raises(SystemExit) as ended:
        run_sweep("a test", PLANTED, arguments)
    assert ended.value.code == 2
    assert "was begun with other values of training" in capsys.readouterr().err


@pytest.fixture
def here(monkeypatch):
    """The sweep runs in this process, and draws no figures."""

    @contextmanager
    def connected(*_: object) -> Iterator[LocalEngine]:
        yield LocalEngine()

    monkeypatch.setattr(engine, "connected", connected)
    monkeypatch.setattr(catalogue, "all_figures", lambda results: {})


def run_small(store: Path, *flags: str) -> int:
    given = ["--store", str(store), "--num-epochs", "1", "--seeds", "0", "1", *flags]
    with pytest.raises(SystemExit) as ended:
        run_sweep("a test", PLANTED, given)
    return ended.value.code


@pytest.mark.usefixtures("here")
def test_what_failed_is_told_once_beside_the_table_of_what_did_not(tmp_path, monkeypatch, capsys):
    original = local_engine.run_fit

    def diverges(context, spec):
        if len(spec.removed):
            raise FloatingPointError(f"the loss is not finite in epoch {spec.seed}")
        original(context, spec)

    monkeypatch.setattr(local_engine, "run_fit", diverges)
    assert run_small(tmp_path, "--methods", "random") == 1
    said = capsys.readouterr()
    assert "worst group" in said.out
    assert said.err.count("failed: ") == 1
    assert "failed: 2 fits: FloatingPointError: the loss is not finite in epoch 0\n" in said.err
    assert "Traceback" not in said.err
    assert run_small(tmp_path, "--methods", "random", "--debug") == 1
    assert ", in diverges" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_where_nothing_succeeds_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(local_engine, "run_fit", lambda context, spec: 1 / 0)
    assert run_small(tmp_path) == 1
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()[-4:]
    assert lines[0].startswith("no test trial of planted-")
    assert lines[1] == "failed: 4 fits: ZeroDivisionError: division by zero"
    assert lines[2].startswith("failed: trak: it reads the base models, and one could not be trained: ZeroDivision")
    assert lines[3] == "the same command tries again what failed; --debug shows where it did"


@pytest.mark.usefixtures("here")
def test_a_store_that_is_lost_on_the_way_is_told_with_what_is_left(tmp_path, monkeypatch, capsys):
    def refuses(*_: object) -> None:
        raise StoreError("the store is full")

    monkeypatch.setattr(Store, "write_experiment", refuses)
    assert run_small(tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the store is full; the same command goes on")


@pytest.mark.usefixtures("no_ray")
def test_debug_shows_where_an_input_was_refused(tmp_path, capsys):
    assert run_small(tmp_path, "--beta", "inf", "--debug") == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.splitlines()[-1] == "error: --beta is a finite number, received inf"


@pytest.mark.usefixtures("no_ray")
def test_a_line_is_not_wrapped_inside_a_path(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    folder = tmp_path / "a folder of a name with many blanks"
    assert run_small(tmp_path, "--data", str(folder)) == 2
    assert str(folder) in capsys.readouterr().err


@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("flag", ["--store", "--data", "--model", "--figures"])
def test_an_argument_that_is_no_text_is_refused(flag, tmp_path, capsys):
    assert run_small(tmp_path / "store", flag, f"{tmp_path}/\udcff") == 2
    assert capsys.readouterr().err.startswith("error: an argument is text in UTF-8; received")


@pytest.mark.usefixtures("no_ray")
def test_an_error_names_a_path_with_its_blanks(tmp_path, capsys):
    (tmp_path / "a  file").write_text("notes")
    assert run_small(tmp_path / "store", "--figures", f"{tmp_path}/a  file") == 2
    assert f"{tmp_path}/a  file is a file" in capsys.readouterr().err


@pytest.mark.usefixtures("here")
def test_figures_go_to_the_home_that_was_checked(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "[b]ants[/i]:ant:"
    assert run_small(store, "--figures", "~/figures", "--methods", "random") == 0
    assert (tmp_path / "home" / "figures").is_dir()
    assert not (tmp_path / "~").exists()
    assert f"in {store}: base models" in capsys.readouterr().err, "a path is shown as it is spelt"


@pytest.mark.usefixtures("here")
def test_the_table_is_printed_where_its_file_cannot_be_written(tmp_path, monkeypatch, capsys):
    def refuses(path: Path, data: bytes) -> None:
        raise StoreError(f"{path} cannot be written (No space left on device): free some space, or name another place")

    monkeypatch.setattr(output, "write_file", refuses)
    assert run_small(tmp_path, "--methods", "random") == 1
    said = capsys.readouterr()
    assert "worst group" in said.out
    assert "but not in" in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.usefixtures("here")
def test_a_full_standard_output_is_named(tmp_path, monkeypatch, capsys):
    for run in (
        lambda: run_small(tmp_path, "--methods", "random"),
        lambda: exit_status_of_main("status", str(tmp_path)),
        lambda: exit_status_of_main("--version"),
        lambda: exit_status_of_main("run"),
        lambda: exit_status_of_main("run", "planted", "--help"),
    ):
        with Path("/dev/full").open("w") as full, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            assert run() == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("error: the standard output cannot be written (No space left on device)")


def exit_status_of_main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


@pytest.mark.usefixtures("here")
def test_a_standard_output_that_is_closed_gets_nothing(tmp_path, monkeypatch):
    run_small(tmp_path, "--methods", "random")
    monkeypatch.setattr(sys, "stdout", None)  # as Python has it then
    main(["status", str(tmp_path)])


def test_the_environment_presets_what_flags_may_change(monkeypatch):
    monkeypatch.setenv("D3M_RAY_STORE", "s3://bucket/name")
    monkeypatch.setenv("D3M_RAY_NUM_WORKERS", "0")
    monkeypatch.setenv("D3M_RAY_GPUS_PER_TRIAL", "0.25")
    monkeypatch.setenv("D3M_RAY_ADDRESS", "ray://10.0.0.1:10001")
    preset = with_environment(LdsConfig(TOXIGEN)).experiment
    assert preset.store == "s3://bucket/name"
    assert preset.execution == ExecutionConfig(address="ray://10.0.0.1:10001", gpus_per_trial=0.25)
    own = with_environment(replace(TOXIGEN, store="mine", execution=ExecutionConfig(num_workers=3)))
    assert (own.store, own.execution.num_workers) == ("mine", 3)


def test_a_wrong_flag_is_answered_without_the_imports_that_take_seconds():
    script = (
        "import sys; sys.argv = ['sweep', '--num-epochs', '0']\n"
        "from runpy import run_path\n"
        "try:\n    run_path('sweeps/demo.py', run_name='__main__')\n"
        "except SystemExit as ended:\n"
        "    print(ended.code, sorted({'ray', 'torch', 'transformers', 'matplotlib'} & set(sys.modules)))\n"
    )
    called = [sys.executable, "-c", script]
    shown = subprocess.run(called, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert shown.stdout == "2 []\n"
    assert "--num-epochs is at least 1, received 0" in shown.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["--keep-share", "50%", ".9", "99.5%"], ["--keep-share", "0.5", ".9", "0.995"]),
        (["--val-share=20%", "--num-removed", "5%"], ["--val-share=0.2", "--num-removed", "5%"]),
        (["--keep_share", "7%", "--text-columns", "7%"], ["--keep_share", "0.07", "--text-columns", "7%"]),
    ],
)
def test_a_share_may_be_written_in_per_cent(given, expected):
    assert with_shares(given) == expected
