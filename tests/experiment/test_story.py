"""The whole story on planted text: what it stores, that it goes on where it stopped, and that it keeps its promise."""

import dataclasses
import io
import shutil
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from d3m_ray.analysis.status import experiment_status
from d3m_ray.attribution import worker
from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.errors import EngineLostError, InputError, reason
from d3m_ray.experiment import scoring
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.failures import Unscored, told
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import MAX_RENEWALS, Outcome
from d3m_ray.experiment.story import prepare, run_experiment
from d3m_ray.selection.settings import AlignmentConfig, SelectionConfig
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials import engine as engine_module
from d3m_ray.trials.engine import FailedFit, FitEvent, LocalEngine
from d3m_ray.trials.settings import ExecutionConfig

SMALL = ExperimentConfig(
    corpus=Planted(num_train=160, num_val=40, num_test=40),
    model="tiny",
    methods=("trak", "trak_heuristic", "random"),
    num_removed=(0, 10),
    seeds=(0, 1),
    training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    trak=TrakConfig(projection_dim=64),
    execution=ExecutionConfig(),
)
PASSING = ["created_at", "train_seconds"]  # what may differ between two runs of the same thing


def run(config: ExperimentConfig, store: Store, engine=None) -> Outcome:
    with Progress() as progress:
        return run_experiment(prepare(config, store, progress), engine or LocalEngine(), progress)


def rows(store: Store, table: str) -> pd.DataFrame:
    frame = store.read_all(table).drop(columns=PASSING, errors="ignore")
    return frame.sort_values(list(frame.columns), ignore_index=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("undisturbed"))
    assert run(SMALL, store).failed == []
    return store


def test_every_trial_of_the_grid_is_stored(undisturbed):
    trials = undisturbed.read_all("trials").query("group == 'worst' and split == 'test'")
    asked = {(method, k, seed) for method in ("trak", "random") for k in (0, 10) for seed in (0, 1)}
    found = set(trials[["method", "num_removed", "seed"]].itertuples(index=False, name=None))
    chosen = {trial for trial in found if trial[0] == "trak_heuristic"}
    assert found - chosen == asked
    assert {seed for _, _, seed in chosen} == {0, 1}
    assert len({k for _, k, _ in chosen}) == 1
    assert (trials["num_train"] == 160 - trials["num_removed"]).all()


def test_equal_fits_are_trained_once(undisturbed):
    trials = undisturbed.read_all("trials", columns=["fit_key", "num_removed", "method", "seed"]).drop_duplicates()
    base = trials.query("num_removed == 0")
    assert len(base) == 4
    assert base["fit_key"].nunique() == 2
    assert len(undisturbed.keys("fits")) == trials["fit_key"].nunique()


def test_progress_tells_val_and_never_test(tmp_path, monkeypatch):
    """Of a model that is made to be right on all of val and wrong on all of test."""
    store, events = Store(tmp_path), []
    original = engine_module.run_fit

    def right_on_val_alone(context, spec):
        original(context, spec)
        fit, is_val = store.read("fits", spec.fit_key), store.read("fits", spec.fit_key)["split"] == "val"
        margin, predicted = np.where(is_val, 1.0, -1.0), np.where(is_val, fit["label"], 1 - fit["label"])
        fit = fit.assign(margin=margin.astype(np.float32), predicted=predicted)
        store.write("fits", spec.fit_key, fit, store.read_metadata("fits", spec.fit_key)["configuration"])

    class Watched(LocalEngine):
        def begin_fits(self, context, fits, on_fit):
            return super().begin_fits(context, fits, lambda event: (events.append(event), on_fit(event)))

    monkeypatch.setattr(engine_module, "run_fit", right_on_val_alone)
    run(dataclasses.replace(SMALL, methods=("random",), num_removed=(10,), seeds=(0,)), store, Watched())
    assert store.read_all("trials").query("split == 'test'")["accuracy"].max() == 0
    assert [event.val_wga for event in events] == [None, 1.0]
    progress = Progress()
    progress.begin_fits(1)
    for event in events:
        progress.fit(event)
    assert progress.fits_line().endswith("best val WGA so far 1.000")


def test_removals_join_to_trials(undisturbed):
    trials = undisturbed.read_all("trials", columns=["trial_key", "num_removed"]).drop_duplicates()
    counts = undisturbed.read_all("removals")["trial_key"].value_counts()
    removing = trials[trials["num_removed"] > 0].set_index("trial_key")["num_removed"]
    assert counts.sort_index().tolist() == removing.sort_index().tolist()


def test_lowest_alignment_is_what_goes(undisturbed):
    alignments = undisturbed.read_all("alignments").sort_values("alignment")
    removed = undisturbed.read_all("removals").query("method == 'trak'").groupby("trial_key")["example_id"].apply(set)
    assert len(removed) == 2
    assert all(ids == set(alignments["example_id"].head(10)) for ids in removed)


def test_the_same_command_trains_nothing_again(undisturbed, monkeypatch):
    monkeypatch.setattr(engine_module, "run_fit", _must_not_train)
    before = rows(undisturbed, "trials")
    assert run(SMALL, undisturbed).failed == []
    pd.testing.assert_frame_equal(rows(undisturbed, "trials"), before)


def _must_not_train(*_: object) -> None:
    raise AssertionError("a stored fit was trained again")


class _StopsAfter(LocalEngine):
    """An engine whose process is stopped while it works on fit number `num_fits + 1`."""

    def __init__(self, num_fits: int) -> None:
        self.num_left = num_fits

    def begin_fits(self, context, fits: Sequence, on_fit):
        fits_done = fits[: self.num_left]
        ended = super().begin_fits(context, fits_done, on_fit)
        self.num_left -= len(fits_done)
        if len(fits_done) < len(fits):
            raise KeyboardInterrupt
        return ended


@pytest.mark.parametrize("num_fits", [1, 3, 5])
def test_a_stopped_run_goes_on_to_the_same_results(num_fits, undisturbed, tmp_path, monkeypatch, assert_same_results):
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(SMALL, store, _StopsAfter(num_fits))
    stored = store.keys("fits")
    assert len(stored) == num_fits
    trained = []
    original = engine_module.run_fit
    monkeypatch.setattr(engine_module, "run_fit", lambda c, spec: (trained.append(spec.fit_key), original(c, spec))[1])
    run(SMALL, store)
    assert not stored & set(trained)
    assert_same_results(store, undisturbed)


def test_more_seeds_extend_the_same_experiment(undisturbed, tmp_path, assert_same_results):
    store = Store(tmp_path)
    less = dataclasses.replace(SMALL, seeds=(0,), methods=("random",))
    assert run(less, store).experiment == run(SMALL, store).experiment
    assert_same_results(store, undisturbed)


def test_a_failed_fit_is_recorded_and_the_others_go_on(tmp_path, monkeypatch, undisturbed, assert_same_results):
    store = Store(tmp_path)
    original = engine_module.run_fit

    def fails_for_random(context, spec):
        if spec.seed == 1 and len(spec.removed):
            raise MemoryError("made up")
        original(context, spec)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "run_fit", fails_for_random)
        failed = run(SMALL, store).failed
    assert len(failed) == 3
    failures = store.read_all("failures")
    assert failures["error"].unique().tolist() == ["MemoryError: made up"]
    assert failures["traceback"].str.contains("fails_for_random").all()
    assert run(SMALL, store).failed == []
    assert store.read_all("failures").empty
    assert_same_results(store, undisturbed)


class _WritesElsewhere(LocalEngine):
    """An engine one of whose machines has a folder of its own in the store's place: what it trains is not stored."""

    def begin_fits(self, context, fits: Sequence, on_fit):
        failed = super().begin_fits(context, fits, on_fit)
        for trial in (trial for planned in fits for trial in planned.trials if trial.method == "random"):
            context.store.delete_result("trials", trial.trial_key, trial.method)
        return failed


def test_a_planned_trial_that_is_not_stored_in_the_end_is_a_failure(tmp_path):
    store = Store(tmp_path)
    (lost,) = run(SMALL, store, _WritesElsewhere()).unscored
    assert lost.name == "random"
    assert lost.error.startswith(f"4 trials trained and not in {store}, the first with 0 removed and seed 0; see that")
    assert run(SMALL, store).unscored == []


def test_a_lost_base_model_ends_only_what_reads_it(tmp_path, monkeypatch, undisturbed, assert_same_results):
    """Arms that wait for no base model are trained, the others' trials say why they are not; a next run makes them."""
    store = Store(tmp_path)
    original = engine_module.run_fit

    def diverges(context, spec):
        if spec.keeps_weights:
            raise FloatingPointError("the training loss is not finite")
        original(context, spec)

    with monkeypatch.context() as patch:
        patch.setattr(engine_module, "run_fit", diverges)
        outcome = run(SMALL, store)
    assert [failure.error for failure in outcome.failed] == ["FloatingPointError: the training loss is not finite"]
    (unscored,) = outcome.unscored
    assert unscored.name == "trak"
    assert "could not be trained: FloatingPointError: the training loss is not finite" in unscored.error
    done = store.read_all("trials", columns=["method", "num_removed", "seed"]).drop_duplicates()
    assert {("random", 0, 1), ("random", 10, 0), ("random", 10, 1)} <= set(done.itertuples(index=False, name=None))
    (experiment,) = store.read_experiments().values()
    states = experiment_status(store, experiment)
    assert "missing" not in set(states["state"])
    heuristic = states[states["method"] == "trak_heuristic"]
    assert heuristic["error"].str.startswith("it reads the base models").tolist() == [True, True]

    assert run(SMALL, store).failed == []
    assert store.read_all("failures").empty
    assert_same_results(store, undisturbed)


def test_a_method_that_fails_ends_only_its_own_arms(tmp_path, monkeypatch, replace_scorers):
    def fails(inputs, settings, pool):
        raise RuntimeError("shapes cannot be multiplied (3x4 and 5x6)\nmore of it")

    replace_scorers("ekfac", score_groups=fails)
    config = dataclasses.replace(SMALL, methods=("ekfac", "embedding"), num_removed=(10,), seeds=(0,))
    store = Store(tmp_path)
    forgotten = []
    monkeypatch.setattr(worker, "forget_models", lambda: forgotten.append("what its steps left half-way"))
    outcome = run(config, store)
    assert len(forgotten) == 1
    assert outcome.failed == []
    assert [(u.name, u.error) for u in outcome.unscored] == [
        ("ekfac", "RuntimeError: shapes cannot be multiplied (3x4 and 5x6)")
    ]
    assert set(store.read_all("trials")["method"]) == {"embedding"}
    failures = store.read_all("failures")
    assert failures["method"].tolist() == ["ekfac"]
    assert "in fails" in failures["traceback"].iloc[0]


def test_what_is_not_finite_is_a_failure_and_no_result(tmp_path, replace_scorers):
    """The loss of the one step is finite, what it leaves is not; a score overflows; neither is stored."""
    one_step = dataclasses.replace(SMALL.training, learning_rate=1e38, batch_size=160)
    config = dataclasses.replace(SMALL, methods=("random",), num_removed=(0,), seeds=(0,), training=one_step)
    store = Store(tmp_path / "trained")
    assert [failure.error for failure in run(config, store).failed] == [
        "FloatingPointError: the trained model gives no finite answers: lower --learning-rate"
    ]
    assert store.keys("fits") == set()

    def overflows(inputs, settings, pool):
        return np.where(np.arange(160)[:, None] == 3, np.inf, np.ones((160, 4), np.float32))

    replace_scorers("embedding", score_groups=overflows)
    config = dataclasses.replace(SMALL, methods=("embedding",), num_removed=(10,), seeds=(0,))
    store = Store(tmp_path / "aligned")
    (unscored,) = run(config, store).unscored
    assert "finite" in unscored.error
    assert store.keys("alignments") == store.keys("trials") == set()


def test_a_reason_is_a_line_that_can_be_read():
    told = reason(TypeError(f"cannot send {'0, ' * 10_000}"))
    assert told.startswith("TypeError: cannot send 0, 0, ")
    assert told.endswith("...")
    assert len(told) < 1100


def test_reasons_are_told_once_with_their_counts():
    fits = [FailedFit(str(i), f"ValueError: step {i} has a wrong shape") for i in range(3)] + [FailedFit("x", "other")]
    lost = [Unscored("trak", "no base model", ""), Unscored("ekfac", "no base model", ""), Unscored("loss", "bad", "")]
    assert told(fits, lost) == [
        "3 fits: ValueError: step 0 has a wrong shape",
        "1 fit: other",
        "trak, ekfac: no base model",
        "loss: bad",
    ]


OTHER_ARMS = ("ekfac", "bm25", "embedding", "loss", "trak_helpful", "trak_auto", "random_majority", "balanced")
OTHER_OBJECTIVES = ("balanced_sampling", "group_dro", "jtt", "dfr")


@pytest.fixture(scope="module")
def every_arm(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("every_arm"))
    config = dataclasses.replace(SMALL, methods=(*OTHER_ARMS, *OTHER_OBJECTIVES), num_removed=(10,), seeds=(0,))
    assert run(config, store).failed == []
    return store


def test_every_arm_has_its_trial(every_arm):
    trials = every_arm.read_all("trials").query("group == 'worst' and split == 'test'").set_index("method")
    assert set(trials.index) == {*OTHER_ARMS, *OTHER_OBJECTIVES}
    assert (trials.loc[list(OTHER_OBJECTIVES), "num_removed"] == 0).all()
    assert (trials.loc[list(OTHER_OBJECTIVES), "objective"] == list(OTHER_OBJECTIVES)).all()
    assert (trials.loc[list(OTHER_ARMS), "objective"] == "erm").all()
    assert trials.loc["balanced", "num_removed"] > 10
    assert trials["fit_key"].nunique() == len(trials), "none of these arms is another one's model"


def test_auto_d3m_aligns_over_pseudo_groups_of_stored_scores(every_arm):
    scores = every_arm.read_all("scores").query("method == 'trak_auto'")
    assert scores["query_set"].unique().tolist() == ["pseudo_0", "pseudo_1", "pseudo_2", "pseudo_3"]
    assert every_arm.read_all("query_scores")["method"].unique().tolist() == ["trak"]
    (key,) = every_arm.keys("alignments", "trak_auto")
    configuration = every_arm.read_metadata("alignments", key, "trak_auto")["configuration"]
    assert configuration["query_split"] == "val"
    assert configuration["scoring_seconds"] > 0


def test_other_weights_of_the_groups_reuse_the_stored_scores(every_arm, monkeypatch):
    def must_not_score(*_: object, **__: object) -> None:
        raise AssertionError("stored scores were recomputed")

    monkeypatch.setattr(scoring, "attribute", must_not_score)
    alignment = AlignmentConfig(group_weights="loss")
    config = dataclasses.replace(
        SMALL, methods=("trak", "trak_auto"), num_removed=(10,), seeds=(0,), alignment=alignment, experiment="weighed"
    )
    run(config, every_arm)
    record = every_arm.read_experiments()["weighed"]
    for name in ("trak", "trak_auto"):
        key = record.keys["alignments"][name]
        found = every_arm.read("alignments", key, name).set_index("example_id")["alignment"]
        configuration = every_arm.read_metadata("alignments", key, name)["configuration"]
        assert configuration["alignment"]["group_weights"] == "loss"
        assert configuration["scores_key"] == record.keys["scores"][name]
        assert configuration["group_weights"] == configuration["group_losses"]
        scores = every_arm.read("scores", configuration["scores_key"], name)
        wide = scores.pivot(index="example_id", columns="query_set", values="score")[configuration["group_names"]]
        expected = wide.astype("float64") @ np.array(configuration["group_losses"])
        np.testing.assert_allclose(found[expected.index], expected, rtol=1e-12)


def test_a_method_is_scored_again_for_its_own_settings_only(every_arm, tmp_path, monkeypatch):
    methods = ("trak_helpful", "ekfac")
    config = dataclasses.replace(SMALL, methods=methods, num_removed=(10,), seeds=(0,), ekfac=EkfacConfig(damping=0.2))
    run(config, every_arm)
    assert len(every_arm.keys("scores", "ekfac")) == 2
    assert len(every_arm.keys("scores", "trak")) == 1


def test_the_thesis_alone_explains_test(every_arm):
    config = dataclasses.replace(
        SMALL, methods=("trak",), num_removed=(10,), seeds=(0,), protocol="thesis", experiment="thesis"
    )
    run(config, every_arm)
    splits = {}
    for name in ("trak", "ekfac", "bm25", "embedding", "loss", "trak_auto"):
        for key in every_arm.keys("alignments", name):
            configuration = every_arm.read_metadata("alignments", key, name)["configuration"]
            splits.setdefault(configuration["protocol"], set()).add(configuration["query_split"])
    assert splits == {"standard": {"val"}, "thesis": {"test"}}


def test_the_worst_loss_shares_the_scores_of_the_loss_and_weighs_the_groups_itself(every_arm, monkeypatch):
    """Over groups and pseudo-groups."""

    def run_with(target: str):
        chosen = {"num_removed": (0,), "seeds": (0,), "experiment": target, "alignment": AlignmentConfig(target=target)}
        run(dataclasses.replace(SMALL, methods=("trak", "trak_auto", "loss"), **chosen), every_arm)
        return every_arm.read_experiments()[target].keys

    of_loss = run_with("loss")
    with monkeypatch.context() as patch:
        patch.delattr(scoring, "attribute")
        of_worst = run_with("worst_loss")
    assert of_worst["scores"] == of_loss["scores"]
    assert len(every_arm.keys("scores", "loss")) == 1, "no target changes what reads no query"
    for name in ("trak", "trak_auto"):
        key = of_worst["alignments"][name]
        configuration = every_arm.read_metadata("alignments", key, name)["configuration"]
        assert configuration["query_target"] == "loss"
        assert configuration["alignment"]["target"] == "worst_loss"
        losses = np.array(configuration["group_losses"])
        weights = np.exp(10 * losses) / np.exp(10 * losses).sum()
        np.testing.assert_allclose(configuration["group_weights"], weights, rtol=1e-9)
        assert len(losses) == 4
        scores = every_arm.read("scores", configuration["scores_key"], name)
        wide = scores.pivot(index="example_id", columns="query_set", values="score")[configuration["group_names"]]
        found = every_arm.read("alignments", key, name).set_index("example_id")["alignment"]
        expected = wide.astype("float64") @ weights
        np.testing.assert_allclose(found[expected.index], expected, rtol=1e-9)


def test_removing_all_is_refused_before_anything_is_stored(tmp_path):
    store = Store(tmp_path / "store")
    config = dataclasses.replace(SMALL, num_removed=(0, 160))
    with pytest.raises(InputError, match="--num-removed leaves train examples; received 160, train has 160"):
        run(config, store)
    assert not (tmp_path / "store").exists()


def test_a_cell_floor_changes_what_goes_and_it_is_said(undisturbed, tmp_path, capsys):
    """With the fits and scores of the run without it, so that one fit is trained."""
    store = Store(shutil.copytree(str(undisturbed), tmp_path / "store"))
    selection = SelectionConfig(cell_floor="95%")
    config = dataclasses.replace(SMALL, methods=("trak",), num_removed=(0, 5), seeds=(0,), selection=selection)
    name = run(config, store).experiment
    assert "trak, 5 removed: --cell-floor 95% kept " in capsys.readouterr().err
    ours = [("experiment", "==", name), ("num_removed", "==", 5)]
    (key,) = store.read_all("trials", filters=ours)["trial_key"].unique()
    train = store.read_all("alignments").set_index("example_id")
    gone = train.loc[store.read("removals", key, "trak")["example_id"]].groupby(["group", "label"]).size()
    sizes = train.groupby(["group", "label"]).size()
    assert (gone <= np.floor(sizes.loc[gone.index] / 20 + 1e-9)).all()
    said = store.read_metadata("removals", key, "trak")["configuration"]["selection"]
    assert said["cell_floor"] == "95%"
    assert sum(said["spared_cells"].values()) == said["num_spared"] > 0
    assert store.read_experiment(name).configuration["selection"]["cell_floor"] == "95%"


def test_a_floor_that_leaves_too_few_is_refused_before_anything_is_stored(tmp_path):
    selection = SelectionConfig(cell_floor="99%")
    config = dataclasses.replace(SMALL, selection=selection)
    with pytest.raises(
        InputError, match="keeps, 160 of 160 train examples in all; received 10, of which trak can remove 0"
    ):
        run(config, Store(tmp_path / "store"))
    assert not (tmp_path / "store").exists()
    run(dataclasses.replace(config, methods=("random",), num_removed=(0,), seeds=(0,)), Store(tmp_path / "store"))


def test_one_name_stands_for_one_configuration(tmp_path):
    store = Store(tmp_path)
    config = dataclasses.replace(SMALL, experiment="mine", methods=("random",), num_removed=(0,), seeds=(0,))
    run(config, store)
    other = dataclasses.replace(config, training=dataclasses.replace(SMALL.training, learning_rate=2e-3))
    with pytest.raises(InputError, match="'mine' was begun with other values of training"):
        run(other, store)


def test_experiments_of_either_pairing_share_the_full_splits_fit_and_say_their_own_pairing(tmp_path):
    store = Store(tmp_path)
    for pairing in ("independent", "common"):
        training = dataclasses.replace(SMALL.training, pairing=pairing)
        run(dataclasses.replace(SMALL, experiment=pairing, methods=("random",), seeds=(0,), training=training), store)
    trials = store.read_all("trials").drop_duplicates("trial_key")
    assert trials.groupby("num_removed")["fit_key"].nunique().to_dict() == {0: 1, 10: 2}
    for trial in trials.itertuples():
        configuration = store.read_metadata("trials", trial.trial_key, "random")["configuration"]
        assert configuration["training"]["pairing"] == trial.experiment


@pytest.mark.slow
def test_the_promise_removal_by_alignment_beats_random_removal(tmp_path):
    """On planted text, over six seeds, paired; and most of what is removed is what was planted."""
    options = Planted(seed=11)
    config = dataclasses.replace(
        SMALL,
        corpus=options,
        methods=("trak", "random"),
        num_removed=(0, 90),
        seeds=tuple(range(6)),
        training=TrainingConfig(num_epochs=3, learning_rate=1e-3, final_model="last"),
        trak=TrakConfig(),
    )
    store = Store(tmp_path)
    run(config, store)
    trials = store.read_all("trials").query("group == 'worst' and split == 'test'")
    wga = trials.pivot(index="seed", columns=["method", "num_removed"], values="accuracy")
    gain = wga["trak", 90] - wga["random", 90]
    assert len(gain) == 6
    assert (gain > 0).sum() >= 5, wga
    assert gain.mean() > 0.1, wga
    harmful = load_splits(options).harmful_ids
    removed = set(store.read_all("removals").query("method == 'trak'")["example_id"])
    assert len(removed) == 90
    assert len(removed & harmful) > 0.6 * 90, f"{len(removed & harmful)} of {len(harmful)} harmful ones found"


# --- methods that replay training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["metagradient", "tracin"])
def test_what_costs_by_target_scores_the_weighed_groups_at_once(method, tmp_path):
    exact = dataclasses.replace(SMALL.training, precision="float32", num_epochs=2)
    config, found = dataclasses.replace(SMALL, methods=(method,), num_removed=(10,), seeds=(0,), training=exact), {}
    for per_group in (False, True):
        store = Store(tmp_path / str(per_group))
        outcome = run(dataclasses.replace(config, metagradient=MetagradientConfig(per_group=per_group)), store)
        assert (outcome.failed, outcome.unscored) == ([], [])
        found[per_group] = store.read_all("scores"), store.read_all("alignments")["alignment"].to_numpy()
        (key,) = store.keys("scores")
        (growth,) = store.read_metadata("scores", key, method)["configuration"]["cotangent_growth"]
        assert 1 <= growth < 30
    (of_sum, weighed), (of_groups, by_group) = found[False], found[True]
    assert set(of_sum["query_set"]) == {scoring.WEIGHED_GROUPS}
    assert of_groups["query_set"].nunique() == len(of_groups) / 160 > 1
    np.testing.assert_array_equal(weighed, of_sum["score"].astype("float64"))
    np.testing.assert_allclose(weighed, by_group, rtol=1e-3, atol=1e-4 * np.abs(by_group).max())


def test_later_rounds_replay_the_base_models_that_they_refit(tmp_path):
    config = dataclasses.replace(SMALL, methods=("tracin",), num_removed=(10,), seeds=(0,))
    outcome = run(dataclasses.replace(config, selection=SelectionConfig(rounds=2)), Store(tmp_path))
    assert (outcome.failed, outcome.unscored) == ([], [])
    assert Store(tmp_path).read_all("removals")["example_id"].nunique() == 10


class LosesItself(LocalEngine):
    """Dies with the first fits of so many runs, once one of them is stored."""

    def __init__(self, num_losses: int) -> None:
        self.num_losses, self.num_renewals = num_losses, 0

    def begin_fits(self, context, fits, on_fit):
        if self.num_renewals == self.num_losses:
            return super().begin_fits(context, fits, on_fit)
        super().begin_fits(context, fits[:1], on_fit)
        on_fit(FitEvent("started", fits[-1]))
        raise EngineLostError("ActorDiedError: gone")

    def renew(self) -> None:
        self.num_renewals += 1


def test_a_run_begins_again_from_what_is_stored_where_its_engine_is_lost(tmp_path, assert_same_results, undisturbed):
    store, engine = Store(tmp_path), LosesItself(2)
    with Progress(Console(file=io.StringIO(), width=1000)) as progress:
        outcome = run_experiment(prepare(SMALL, store, progress), engine, progress)
        said = progress.console.file.getvalue()
    assert outcome.failed == []
    assert engine.num_renewals == 2
    line = "warning: what hands out the work has died (ActorDiedError: gone): what is not stored is begun again"
    assert said.count(line) == 2
    assert_same_results(store, undisturbed)


def test_an_engine_that_is_lost_each_time_ends_the_run(tmp_path):
    engine = LosesItself(1000)
    with pytest.raises(EngineLostError, match=r"has died \(ActorDiedError: gone\): the same command goes on"):
        run(SMALL, Store(tmp_path), engine)
    assert engine.num_renewals == MAX_RENEWALS
