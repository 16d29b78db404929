"""What the command line shows and writes at the end of a run."""

from pathlib import Path

import pytest

from d3m_ray.commands.results import show_results
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import Outcome
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import LocalEngine


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Outcome]:
    """A sweep whose model learns nothing: its learning rate is next to zero."""
    store = Store(tmp_path_factory.mktemp("store"))
    config = ExperimentConfig(
        corpus=Planted(num_train=40, num_val=16, num_test=16),
        model="tiny",
        methods=("random",),
        num_removed=(0, 5),
        seeds=(0, 1),
        training=TrainingConfig(num_epochs=1, learning_rate=1e-9, final_model="last"),
    )
    with Progress() as progress:
        return store, run_experiment(prepare(config, store, progress), LocalEngine(), progress)


@pytest.mark.slow
def test_a_null_result_is_called_so_on_screen_in_a_file_and_in_the_record(
    finished: tuple[Store, Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, outcome = finished
    show_results(store, outcome.experiment, tmp_path)
    headline, *written = (tmp_path / outcome.experiment / "finding.txt").read_text().splitlines()
    assert headline.startswith("No conclusion")
    caveats = list(store.read_experiments()[outcome.experiment].caveats)
    assert "base models" in caveats[0]
    assert caveats[-1].startswith("Fewer than 5 seeds (2): their values are shown, and no interval.")
    assert [line for line in written if line.startswith("caution: ")] == [f"caution: {each}" for each in caveats]
    shown = capsys.readouterr().out
    assert shown.count(caveats[0]) == 1, "what the headline rests on, it says itself"
    for caveat in caveats:
        assert f"caution: {caveat}\n" in shown or caveat in headline


def test_a_folder_of_figures_that_cannot_be_written_is_one_line(
    finished: tuple[Store, Outcome], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    with pytest.raises(StoreError, match=r"file/.* cannot be written \(Not a directory\)"):
        show_results(finished[0], finished[1].experiment, tmp_path / "file")
