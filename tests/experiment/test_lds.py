"""The linear datamodeling score end to end on planted text: ordinary trials, stored scores, and what comes of them."""

import dataclasses
import shutil

import numpy as np
import pytest
from scipy.stats import spearmanr

from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.planted import Planted
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.lds import prepare_lds, run_lds
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.studies import LdsConfig
from d3m_ray.experiment.subsets import plan_subsets
from d3m_ray.selection.arms import random_subset
from d3m_ray.selection.settings import AlignmentConfig
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials import engine as engine_module
from d3m_ray.trials.engine import LocalEngine

SMALL = LdsConfig(
    ExperimentConfig(
        corpus=Planted(num_train=160, num_val=40, num_test=40),
        model="tiny",
        methods=("trak", "embedding", "random"),
        training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
        trak=TrakConfig(projection_dim=64),
        alignment=AlignmentConfig(target="margin"),
    ),
    num_subsets=5,
    removal_shares=("10%",),
    removal_seeds=(100, 101),
)
SUBSETS = "group == 'worst' and split == 'val' and seed >= 1_000_000"


def run(config: LdsConfig, store: Store):
    with Progress() as progress:
        return run_lds(prepare_lds(config, store, progress), LocalEngine(), progress)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("lds"))
    assert run(SMALL, store).failed == []
    return store


def test_subsets_are_ordinary_trials_that_remove_half(measured):
    trials = measured.read_all("trials").query(SUBSETS)
    assert trials["experiment"].str.endswith("-lds").all()
    assert sorted(trials[["method", "num_removed", "seed"]].itertuples(index=False, name=None)) == [
        ("random", 80, 1_000_000 * fit + subset) for fit in (1, 2) for subset in range(5)
    ]
    removed = measured.read_all("removals").groupby("trial_key")["example_id"].apply(frozenset)
    assert len(set(removed[trials["trial_key"]])) == 5
    ids = load_splits(SMALL.experiment.corpus).train.example_ids
    of_first = trials.loc[trials["seed"] == 2_000_003, "trial_key"].iloc[0]
    assert removed[of_first] == frozenset(ids[random_subset(160, 80, 3)]), "both fits lack what (80, 3) always drew"


def test_removal_by_each_method_stands_beside_random_removal(measured):
    trials = measured.read_all("trials").query("group == 'worst' and split == 'val' and seed < 1_000_000")
    found = set(trials[["method", "num_removed", "seed"]].itertuples(index=False, name=None))
    methods = SMALL.experiment.methods
    assert found == {(method, number, seed) for method in methods for number in (0, 16) for seed in (100, 101)}
    (record,) = (record for name, record in measured.read_experiments().items() if "embedding" in record.keys["scores"])
    assert {tuple(trial) for trial in record.plan} > found
    alignment = measured.read("alignments", record.keys["alignments"]["trak"], "trak").set_index("example_id")
    key = trials.query("method == 'trak' and num_removed == 16")["trial_key"].iloc[0]
    removed = measured.read("removals", key, "trak")["example_id"]
    assert set(removed) == set(alignment["alignment"].nsmallest(16).index)


def test_the_score_is_the_rank_correlation_of_predicted_and_retrained_margins(measured):
    splits = load_splits(SMALL.experiment.corpus)
    of_trak = measured.read_all("query_scores").query("method == 'trak'")
    scores = of_trak.pivot(index="example_id", columns="query_id", values="score")
    trials = measured.read_all("trials").query(SUBSETS).sort_values("seed")
    trials, again = trials.iloc[:5], trials.iloc[5:]  # the second fits of the same subsets, in order
    removed = measured.read_all("removals").groupby("trial_key")["example_id"].apply(set)
    fits = measured.read_all("fits").query("split == 'val'").set_index(["fit_key", "example_id"])["margin"]
    rows = measured.read_all("lds").query("method == 'trak'").set_index(["kind", "target"])
    found = rows["lds"]

    def predicted(columns) -> list[float]:
        total = scores[columns].mean(axis=1)
        return [total[~total.index.isin(removed[key])].sum() for key in trials["trial_key"]]

    def margins(keys, ids) -> np.ndarray:
        return np.array([[fits[key, each] for each in ids] for key in keys]).mean(axis=1)

    def retrained(ids) -> tuple[np.ndarray, float]:
        """The mean of both fits, and how far they agree."""
        both = margins(trials["fit_key"], ids), margins(again["fit_key"], ids)
        return np.mean(both, axis=0), spearmanr(*both).statistic

    query = splits.val.example_ids[7]
    actual, agreement = retrained([query])
    assert rows.loc[("query", query), "fit_correlation"] == pytest.approx(agreement)
    assert found["query", query] == pytest.approx(spearmanr(predicted([query]), actual).statistic)

    members = splits.val.example_ids[splits.val.groups == 1]
    actual, agreement = retrained(members)
    expected = spearmanr(predicted(members), actual).statistic
    assert found["group", splits.group_names[1]] == pytest.approx(expected)
    of_group = rows.loc[("group", splits.group_names[1])]
    assert of_group["fit_correlation"] == pytest.approx(agreement)
    if agreement > 0:
        assert of_group["ceiling"] == pytest.approx(np.sqrt(2 * agreement / (1 + agreement)))
    else:
        assert np.isnan(of_group["ceiling"])
    assert found["query", "mean"] == pytest.approx(found["query"].drop("mean").mean())


def test_the_alignment_predicts_the_weighed_sum_of_the_groups(measured):
    splits = load_splits(SMALL.experiment.corpus)
    (row,) = measured.read_all("lds").query("method == 'trak' and kind == 'alignment'").to_dict("records")
    configuration = measured.read_metadata("lds", row["lds_key"], "trak")["configuration"]
    key = configuration["alignment_key"]
    alignment = measured.read("alignments", key, "trak").set_index("example_id")["alignment"]
    weights = measured.read_metadata("alignments", key, "trak")["configuration"]["group_weights"]
    trials = measured.read_all("trials").query(SUBSETS).drop_duplicates("fit_key").set_index("fit_key")
    removed = measured.read_all("removals").groupby("trial_key")["example_id"].apply(set)
    margins = measured.read_all("fits").query("split == 'val'").groupby(["fit_key", "group"])["margin"].mean()
    fits = np.array(configuration["fits"]).reshape(5, 2)
    names = splits.group_names
    sums = [[np.dot(weights, [margins[key, name] for name in names]) for key in of] for of in fits]
    predicted = [alignment.drop(list(removed[trials.loc[of[0], "trial_key"]])).sum() for of in fits]
    assert row["target"] == "mean"
    assert row["lds"] == pytest.approx(spearmanr(predicted, np.mean(sums, axis=1)).statistic)


def test_fits_with_the_seeds_of_base_models_differ_by_what_they_lack(measured):
    experiment = dataclasses.replace(SMALL.experiment, num_checkpoints=2)
    config = dataclasses.replace(SMALL, experiment=experiment, subset_seeds="base", keep_shares=(0.5, 0.99))
    with Progress() as progress:
        context = prepare_lds(config, measured, progress).context
    halves, most = plan_subsets(config, context)
    for subsets, number in ((halves, 80), (most, 1)):
        assert {tuple(trial.fit.seed for trial in of_subset) for of_subset in subsets.trials} == {(0, 1)}
        assert {trial.num_removed for trial in subsets.all_trials} == {number}
        assert (~subsets.kept(160)).sum(axis=1).tolist() == [number] * 5
    (own,) = plan_subsets(SMALL, context)
    trials = [*halves.all_trials, *most.all_trials, *own.all_trials]
    assert len({(trial.num_removed, trial.seed) for trial in trials}) == len({t.trial_key for t in trials}) == 30
    for mine, theirs in zip(own.trials, halves.trials, strict=True):
        np.testing.assert_array_equal(mine[0].fit.removed, theirs[1].fit.removed)


def test_a_subset_of_which_a_fit_is_lost_does_not_count(measured):
    with Progress() as progress:
        (subsets,) = plan_subsets(SMALL, prepare_lds(SMALL, measured, progress).context)
    rest = subsets.trained({subsets.trials[2][1].fit.fit_key})
    assert rest.trials == (*subsets.trials[:2], *subsets.trials[3:])


def test_another_target_is_predicted_and_measured(measured):
    """Of retrained models minus the loss, whose scores are weighed; the fits are those of the margin's LDS."""
    splits, stored = load_splits(SMALL.experiment.corpus), measured.keys("fits")
    experiment = dataclasses.replace(SMALL.experiment, methods=("embedding",), alignment=AlignmentConfig(target="loss"))
    run(dataclasses.replace(SMALL, experiment=experiment, removal_shares=()), measured)
    assert measured.keys("fits") == stored
    (key,) = (
        key
        for key in measured.keys("lds", "embedding")
        if measured.read_metadata("lds", key, "embedding")["configuration"]["query_target"] == "loss"
    )
    configuration = measured.read_metadata("lds", key, "embedding")["configuration"]
    scores = measured.read("query_scores", configuration["scores_key"], "embedding")
    scores = scores.pivot(index="example_id", columns="query_id", values="score")
    removed = measured.read_all("removals").merge(
        measured.read_all("trials")[["trial_key", "fit_key"]].drop_duplicates()
    )
    removed = removed.groupby("fit_key")["example_id"].apply(set)
    fits = measured.read_all("fits").query("split == 'val'").set_index(["fit_key", "example_id"])["margin"]
    members = splits.val.example_ids[splits.val.groups == 1]
    total = scores[members].mean(axis=1)
    predicted = [total[~total.index.isin(removed[key])].sum() for key in configuration["fits"][::2]]
    losses = [-np.log1p(np.exp(-fits[key][members])).mean() for key in configuration["fits"]]
    actual = np.reshape(losses, (5, 2)).mean(axis=1)
    found = measured.read("lds", key, "embedding").set_index(["kind", "target"])["lds"]
    assert found["group", splits.group_names[1]] == pytest.approx(spearmanr(predicted, actual).statistic)


def test_the_number_of_retrains_stands_beside_each_score(measured):
    rows = measured.read_all("lds")
    assert (rows["num_subsets"] == 5).all()
    assert set(rows["method"]) == {"trak", "embedding", "random"}
    assert rows["lds"].notna().mean() > 0.9
    assert rows[["lds_low", "lds_high"]].isna().all(axis=None), "of five subsets there is no interval to tell"
    assert rows.groupby("method")["target"].nunique().eq(40 + 4 + 1).all()
    assert set(rows[["keep_share", "subset_seeds", "fits_per_subset"]].itertuples(index=False, name=None)) == {
        (0.5, "own", 2)
    }


def test_more_subsets_and_methods_train_only_what_is_new(measured, monkeypatch):
    stored = measured.keys("fits")
    trained = []
    original = engine_module.run_fit
    monkeypatch.setattr(engine_module, "run_fit", lambda c, spec: (trained.append(spec), original(c, spec))[1])
    run(SMALL, measured)
    assert trained == []
    methods = dataclasses.replace(SMALL.experiment, methods=("loss",))
    run(dataclasses.replace(SMALL, experiment=methods, num_subsets=6, removal_shares=()), measured)
    assert measured.keys("fits") > stored
    assert [spec.seed for spec in trained if spec.fit_key not in stored] == [1_000_005, 2_000_005]


def test_scores_of_another_version_take_the_place_of_earlier_ones(measured, tmp_path, monkeypatch):
    """Readers would take the larger of two keys; another number of subsets of the same scores is theirs to choose."""
    store = Store(shutil.copytree(str(measured), tmp_path / "store"))
    config = dataclasses.replace(SMALL, removal_shares=())
    name = prepare_lds(config, store, Progress()).context.experiment

    def keys(method: str) -> set[str]:
        ours = [("experiment", "==", name), ("method", "==", method), ("num_subsets", "==", 5)]
        return set(store.read_all("lds", filters=ours).query("subset_seeds == 'own' and keep_share == 0.5")["lds_key"])

    first, others = keys("embedding"), keys("trak")
    with monkeypatch.context() as patched:
        patched.setitem(METHODS, "embedding", dataclasses.replace(METHODS["embedding"], version="another"))
        run(config, store)
    assert len(keys("embedding")) == 1
    assert keys("embedding") != first
    assert keys("trak") == others
    monkeypatch.setattr("d3m_ray.experiment.lds.LDS_VERSION", "another")
    run(config, store)
    assert len(keys("embedding")) == len(keys("trak")) == 1
    assert keys("trak") != others
    monkeypatch.undo()
    run(config, store)
    assert (keys("embedding"), keys("trak")) == (first, others)


def test_a_method_that_fails_ends_only_itself(measured, replace_scorers):
    def fails(inputs, settings, pool):
        raise RuntimeError("made up")

    replace_scorers("ekfac", score_queries=fails)
    experiment = dataclasses.replace(SMALL.experiment, methods=("ekfac", "bm25"))
    outcome = run(dataclasses.replace(SMALL, experiment=experiment, fits_per_subset=1), measured)
    assert [(each.name, each.error) for each in outcome.unscored] == [("ekfac", "RuntimeError: made up")]
    assert {"bm25"} < set(measured.read_all("lds")["method"])
    assert "ekfac" not in set(measured.read_all("lds")["method"])
    failures = measured.read_all("failures")
    assert set(failures[["method", "num_removed", "error"]].itertuples(index=False, name=None)) == {
        ("ekfac", 16, "RuntimeError: made up")
    }
    of_one_fit = measured.read_all("lds").query("method == 'bm25'")
    assert of_one_fit["lds"].notna().any()
    assert of_one_fit[["fit_correlation", "ceiling", "ceiling_high"]].isna().all(axis=None)


def test_too_few_subsets_say_why(tmp_path, monkeypatch):
    def diverges(context, spec):
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(engine_module, "run_fit", diverges)
    with pytest.raises(RunError, match="at least 3 subsets, 0 could be trained: 6 fits: FloatingPointError"):
        run(dataclasses.replace(SMALL, removal_shares=(), fits_per_subset=1), Store(tmp_path))


def test_what_is_no_attribution_method_is_refused():
    with pytest.raises(InputError, match="attribution method, received 'random_majority'; they are trak, ekfac"):
        LdsConfig(dataclasses.replace(SMALL.experiment, methods=("random_majority",)))
    with pytest.raises(InputError, match="--num-subsets is at least 3, received 2"):
        dataclasses.replace(SMALL, num_subsets=2)


@pytest.mark.slow
def test_scores_of_gradients_predict_retraining_better_than_chance(tmp_path):
    """On planted text, of TRAK and of EK-FAC: an interval above zero, and a score well above that of chance."""
    options = Planted(seed=11)
    # A model of random weights, trained at a high rate for as many steps as the full split has, is past what gradients
    # of its end predict: two fits of one subset do not correlate then, so there is nothing to predict.
    training = TrainingConfig(num_epochs=2, learning_rate=1e-3, final_model="last", pairing="independent")
    experiment = dataclasses.replace(
        SMALL.experiment,
        corpus=options,
        methods=("trak", "ekfac", "random"),
        training=training,
        trak=TrakConfig(),
    )
    store = Store(tmp_path)
    run(LdsConfig(experiment, num_subsets=24, fits_per_subset=1), store)
    means = store.read_all("lds").query("target == 'mean'").set_index(["method", "kind"])
    of_chance = means.loc[("random", "query")]
    assert of_chance["lds_low"] < 0 < of_chance["lds_high"], means
    for method in ("trak", "ekfac"):
        assert means.loc[(method, "query"), "lds_low"] > 0, means
        assert means.loc[(method, "query"), "lds"] > of_chance["lds"] + 0.1, means
