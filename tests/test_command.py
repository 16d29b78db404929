"""The command line: what is wrong with an input is said before anything that takes long is begun."""

import subprocess
import sys
from pathlib import Path

import pytest

from d3m_ray.cluster import engine
from d3m_ray.command import run_lds_sweep, run_sweep
from d3m_ray.config import ExperimentConfig, LdsConfig
from d3m_ray.data import PlantedOptions, ToxigenOptions
from d3m_ray.planning import prepare, record_plan
from d3m_ray.progress import Progress
from d3m_ray.store import Store

PLANTED = ExperimentConfig(PlantedOptions(num_train=160, num_val=40, num_test=40), model="tiny", num_removed=(0, 10))
TOXIGEN = ExperimentConfig(ToxigenOptions(), methods=("random",))
ROOT = Path(__file__).resolve().parents[1]


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
    record_plan(prepare(PLANTED, store, Progress()))
    (name,) = store.read_experiments()
    arguments = ["--store", str(tmp_path), "--experiment", name, "--num-epochs", "2"]
    with pytest.raises(SystemExit) as ended:
        run_sweep("a test", PLANTED, arguments)
    assert ended.value.code == 2
    assert "was begun with other values of training" in capsys.readouterr().err


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
