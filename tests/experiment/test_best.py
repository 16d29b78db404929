"""The number of highest val target as an arm: which it is, whose fits it takes, and that test has no say."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from d3m_ray.analysis.headline import headline
from d3m_ray.analysis.results import read_results
from d3m_ray.analysis.status import experiment_status
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.planted import Planted
from d3m_ray.experiment import best
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import Outcome
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.selection.best_number import NumberChoice, choose_number
from d3m_ray.selection.settings import AlignmentConfig
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials import engine as engine_module
from d3m_ray.trials.engine import LocalEngine

SMALL = ExperimentConfig(
    corpus=Planted(num_train=64, num_val=24, num_test=24),
    model="tiny",
    methods=("trak_best", "trak", "random", "random_best", "trak_auto", "trak_auto_best"),
    num_removed=(0, 8, 16),
    seeds=(0, 1),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=TrakConfig(projection_dim=16),
    alignment=AlignmentConfig(target="loss"),
)
ARMS = {"trak_best": "trak", "random_best": "random", "trak_auto_best": "trak_auto"}


def run(config: ExperimentConfig, store: Store) -> Outcome:
    with Progress() as progress:
        return run_experiment(prepare(config, store, progress), LocalEngine(), progress)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("best") / "store")
    assert run(SMALL, store).failed == []
    return store


def trials_of(store: Store, method: str) -> pd.DataFrame:
    columns = ["method", "num_removed", "seed", "fit_key", "trial_key"]
    return store.read_all("trials", columns=columns, filters=[("method", "==", method)]).drop_duplicates()


def selection_of(store: Store, method: str) -> dict:
    key = trials_of(store, method)["trial_key"].iloc[0]
    return store.read_metadata("trials", key, method)["configuration"]["selection"]


@pytest.mark.parametrize("method", ARMS)
def test_the_gains_are_of_the_val_target_and_paired_by_seed(store: Store, method: str) -> None:
    """Computed again from the stored margins of val alone."""
    fits = store.read_all("fits").query("split == 'val'").assign(value=lambda f: -np.log1p(np.exp(-f["margin"])))
    (record,) = store.read_experiments().values()
    name = "trak_auto" if "auto" in method else "trak"
    aligned = store.read_metadata("alignments", record.keys["alignments"][name], name)["configuration"]
    groups = dict(zip(sorted(set(fits["group"])), aligned["group_weights"], strict=False))
    if name == "trak_auto":
        made = store.read_metadata("scores", record.keys["scores"][name], name)["configuration"]
        fits["group"] = fits["example_id"].map(dict(zip(made["query_ids"], made["query_groups"], strict=True)))
        groups = dict(enumerate(aligned["group_weights"]))
    means = fits.groupby(["fit_key", "group"])["value"].mean().reset_index()
    target = (means["value"] * means["group"].map(groups)).groupby(means["fit_key"]).sum()
    values = trials_of(store, ARMS[method]).assign(value=lambda t: t["fit_key"].map(target))
    wide = values.pivot(index="seed", columns="num_removed", values="value")
    selection = selection_of(store, method)
    assert (selection["numbers"], selection["seeds"]) == ([8, 16], [0, 1])
    gains = wide[[8, 16]].sub(wide[0], axis=0)
    np.testing.assert_allclose(selection["gains"], gains.to_numpy().T, rtol=1e-5, atol=1e-7)
    expected = choose_number(np.array([8, 16]), gains.to_numpy()).number
    assert set(trials_of(store, method)["num_removed"]) == {expected}


def test_its_trials_are_fits_of_the_arm_it_is_of(store: Store) -> None:
    for method, source in ARMS.items():
        ours = trials_of(store, method)
        both = ours.merge(trials_of(store, source), on=["num_removed", "seed"])
        assert sorted(both["seed"]) == [0, 1]
        assert (both["fit_key_x"] == both["fit_key_y"]).all()
    (experiment,) = store.read_experiments().values()
    assert set(experiment_status(store, experiment)["state"]) == {"done"}


def test_another_choice_takes_the_place_of_the_earlier_one_and_nothing_is_trained(store, monkeypatch, capsys) -> None:
    def must_not_train(*_: object) -> None:
        raise AssertionError("a stored fit was trained again")

    monkeypatch.setattr(engine_module, "run_fit", must_not_train)
    before = store.read_all("trials")
    assert run(SMALL, store).failed == []
    pd.testing.assert_frame_equal(store.read_all("trials"), before)  # when they were made too: none was written again
    (results,) = read_results(store)
    nothing = [method for method in ARMS if set(trials_of(store, method)["num_removed"]) == {0}]
    said = headline(results).sentence
    assert all(method in said.partition("nothing: on val")[0] for method in nothing)

    def takes_16(numbers: np.ndarray, gains: np.ndarray) -> NumberChoice:
        return NumberChoice(16, gains.mean(axis=0), gains.mean(axis=0))

    capsys.readouterr()
    monkeypatch.setattr(best, "choose_number", takes_16)
    run(SMALL, store)
    shown = capsys.readouterr().err
    assert "trak_best: of 2 numbers of trak, 16 removed raises the val target most" in shown
    for method, source in ARMS.items():
        ours = trials_of(store, method)
        assert set(ours["num_removed"]) == {16}
        of_source = trials_of(store, source).query("num_removed == 16")
        for seed in (0, 1):
            (key,), (other,) = (t.loc[t["seed"] == seed, "trial_key"] for t in (ours, of_source))
            ids = [store.read("removals", k, m)["example_id"] for k, m in ((key, method), (other, source))]
            assert ids[0].tolist() == ids[1].tolist()
    assert len(store.keys("removals", "trak_best")) == 2

    monkeypatch.setattr(best, "choose_number", lambda numbers, gains: NumberChoice(0, *[gains.mean(axis=0)] * 2))
    run(SMALL, store)
    assert store.keys("removals", "trak_best") == set(), "what the earlier choice removed is forgotten with it"


def test_a_lost_fit_ends_its_own_seed_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(context, spec):
        raise MemoryError("made up")

    monkeypatch.setattr(engine_module, "run_fit", fails)
    monkeypatch.setattr(best, "choose_number", lambda numbers, gains: NumberChoice(8, *[gains[0]] * 2))
    (key,) = trials_of(store, "random").query("num_removed == 8 and seed == 1")["fit_key"]
    store.delete_result("fits", key)
    config = dataclasses.replace(SMALL, methods=("random", "random_best"))
    outcome = run(config, store)
    assert len(outcome.failed) == 1
    assert trials_of(store, "random_best")["seed"].tolist() == [0]
    (failure,) = store.read_all("failures").query("method == 'random_best'").to_dict("records")
    assert failure["error"] == (
        "it takes the fits of random with 8 removed, and of seeds 1 none is stored: --methods random --num-removed 8 "
        "--seeds 1 trains them, and the same command then takes them"
    )
    (lacking,) = outcome.unscored
    assert (lacking.name, lacking.error) == ("random_best", failure["error"]), "or the command would end with 0"
