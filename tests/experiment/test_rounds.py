"""Removal in rounds: what goes is found again by hand, nothing is made twice, and a stopped run goes on."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from d3m_ray.attribution.inputs import AttributionInputs, Checkpoint
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.commands.export import ExportRequest, export_train
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.plan import Prepared
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import Outcome
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.metrics.groups import group_losses
from d3m_ray.pool import LocalPool
from d3m_ray.selection.alignment import group_alignment, group_weights
from d3m_ray.selection.settings import SelectionConfig
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials import engine as engine_module
from d3m_ray.trials.engine import LocalEngine
from d3m_ray.trials.stored_fits import stored_predictions

SMALL = ExperimentConfig(
    corpus=Planted(num_train=64, num_val=24, num_test=24),
    model="tiny",
    methods=("trak", "trak_helpful", "random"),
    num_removed=(0, 9),
    seeds=(0,),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=TrakConfig(projection_dim=16),
    selection=SelectionConfig(rounds=2),
)


def run(config: ExperimentConfig, store: Store, engine=None) -> Outcome:
    with Progress() as progress:
        return run_experiment(prepare(config, store, progress), engine or LocalEngine(), progress)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("rounds") / "store")
    assert run(SMALL, store).failed == []
    return store


def removed_by(store: Store, method: str, number: int) -> tuple[set[str], dict]:
    ours = [("method", "==", method), ("num_removed", "==", number)]
    (key,) = store.read_all("trials", columns=["trial_key"], filters=ours)["trial_key"].unique()
    selection = store.read_metadata("trials", key, method)["configuration"]["selection"]
    return set(store.read("removals", key, method)["example_id"]), selection


def alignment_without(prepared: Prepared, removed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ids that are left and their alignment, by the stored model that was trained without the others."""
    context, store = prepared.context.whole(), prepared.context.store
    kept = np.delete(np.arange(64), removed)
    key, val = context.fit_key(removed, 0), context.splits.val
    inputs = AttributionInputs(
        checkpoints=(Checkpoint(key, context.pretrained, store.read_checkpoint(key)),),
        train=context.tokens["train"].take(kept),
        queries=context.tokens["val"],
        num_groups=len(context.splits.group_names),
        precision="auto",
        query_target=prepared.config.alignment.query_target,
    )
    scores = METHODS["trak"].load().score_groups(inputs, prepared.config.trak, LocalPool())
    losses = group_losses(stored_predictions(store, key, val), val.groups, inputs.num_groups)
    weights = group_weights(losses, prepared.config.alignment)
    return context.splits.train.example_ids[kept], group_alignment(scores, weights)


def test_each_round_takes_the_lowest_of_what_is_left_by_models_without_what_went(store: Store) -> None:
    with Progress() as progress:
        prepared = prepare(SMALL, store, progress)
    ids = prepared.context.splits.train.example_ids
    first, alignment = alignment_without(prepared, np.zeros(0, dtype=np.int64))
    gone = set(first[np.argsort(alignment, kind="stable")[:4]])
    left, alignment = alignment_without(prepared, np.flatnonzero(np.isin(ids, list(gone))))
    gone |= set(left[np.argsort(alignment, kind="stable")[:5]])
    removed, selection = removed_by(store, "trak", 9)
    assert removed == gone
    assert [told["num_removed"] for told in selection["rounds"]] == [4, 9]
    keys = [told["alignment_key"] for told in selection["rounds"]]
    assert [len(store.read("alignments", key, "trak")) for key in keys] == [64, 60]
    assert set(store.read("alignments", keys[1], "trak")["example_id"]) == set(left)


def test_the_mirror_has_rounds_of_its_own_and_random_has_none(store: Store) -> None:
    helpful, selection = removed_by(store, "trak_helpful", 9)
    assert len(selection["rounds"]) == 2
    assert len(helpful) == 9
    assert helpful != removed_by(store, "trak", 9)[0]
    assert "rounds" not in removed_by(store, "random", 9)[1]
    assert len(store.keys("alignments", "trak")) == 1 + 2, (
        "of all of train, and of what the first round left, either way"
    )


def test_the_same_command_makes_nothing_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not(*_: object, **__: object) -> None:
        raise AssertionError("what is stored was made again")

    monkeypatch.setattr(engine_module, "run_fit", must_not)
    monkeypatch.setattr("d3m_ray.experiment.scoring.attribute", must_not)
    outcome = run(SMALL, store)
    assert (outcome.failed, outcome.unscored) == ([], [])


class _StopsAfter(LocalEngine):
    """An engine whose process is stopped while it works on fit number `num_fits + 1`."""

    def __init__(self, num_fits: int) -> None:
        self.num_left = num_fits

    def begin_fits(self, context, fits: Sequence, on_fit):
        ended = super().begin_fits(context, fits[: self.num_left], on_fit)
        self.num_left -= len(fits)
        if self.num_left < 0:
            raise KeyboardInterrupt
        return ended


def test_a_run_that_is_stopped_within_a_round_goes_on(store: Store, tmp_path, assert_same_results) -> None:
    stopped = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, stopped, _StopsAfter(3))
    assert len(stopped.keys("fits")) == 3, "two at first, one of the second round's two"
    assert run(SMALL, stopped).failed == []
    assert_same_results(stopped, store)


def test_what_fails_in_a_round_ends_its_own_arms_alone(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, original = Store(tmp_path), engine_module.run_fit

    def fails_for_the_larger(context, spec):
        if spec.keeps_weights and len(spec.removed) == 6:
            raise FloatingPointError("made up")
        original(context, spec)

    config = dataclasses.replace(SMALL, methods=("trak",), num_removed=(0, 6, 12))
    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "run_fit", fails_for_the_larger)
        outcome = run(config, store)
    assert len(outcome.failed) == 1
    (unscored,) = outcome.unscored
    assert "could not be trained: FloatingPointError: made up" in unscored.error
    trials = store.read_all("trials", columns=["num_removed"]).drop_duplicates()
    assert sorted(trials["num_removed"]) == [0, 6]
    assert store.read_all("failures")["num_removed"].tolist() == [12]
    assert run(config, store).failed == []
    assert store.read_all("failures").empty
    assert pd.unique(store.read_all("trials")["num_removed"]).size == 3


def test_what_went_is_exported_with_the_round_in_which_it_went(store: Store, tmp_path) -> None:
    request = ExportRequest("trak", str(tmp_path / "clean.csv"), num_removed=9)
    assert export_train(store, request) == 0
    removed = pd.read_csv(tmp_path / "clean.removed.csv")
    ids, selection = removed_by(store, "trak", 9)
    assert set(removed["example_id"]) == ids
    assert removed["round"].tolist() == [1] * 4 + [2] * 5
    assert removed["num_ranked"].tolist() == [64] * 4 + [60] * 5
    for number, told in enumerate(selection["rounds"], start=1):
        alignment = store.read("alignments", told["alignment_key"], "trak").set_index("example_id")["alignment"]
        of_round = removed[removed["round"] == number]
        assert of_round["alignment"].tolist() == pytest.approx(alignment[of_round["example_id"]].tolist())
        assert of_round["rank"].tolist() == list(range(1, len(of_round) + 1))
        assert of_round["reason"].str.contains(f" from the lowest in round {number}; lowest score ").all()
    assert len(pd.read_csv(tmp_path / "clean.csv")) == 55
