"""The linear datamodeling score end to end on planted text: ordinary trials, stored scores, and what comes of them."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import spearmanr

from d3m_ray import engine as engine_module
from d3m_ray.attribution import METHODS
from d3m_ray.config import AlignmentConfig, ExperimentConfig, LdsConfig, TrainingConfig, TrakConfig
from d3m_ray.data import PlantedOptions, load_splits
from d3m_ray.engine import LocalEngine
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.lds import prepare_lds, run_lds
from d3m_ray.progress import Progress
from d3m_ray.store import Store

SMALL = LdsConfig(
    ExperimentConfig(
        corpus_options=PlantedOptions(num_train=160, num_val=40, num_test=40),
        model="tiny",
        methods=("trak", "embedding", "random"),
        training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
        trak=TrakConfig(projection_dim=64),
    ),
    num_subsets=5,
)


def run(config: LdsConfig, store: Store):
    with Progress() as progress:
        return run_lds(prepare_lds(config, store, progress), LocalEngine(), progress)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Store:
    store = Store(tmp_path_factory.mktemp("lds"))
    assert run(SMALL, store).failed == []
    return store


def test_subsets_are_ordinary_trials_that_remove_half(measured):
    trials = measured.read_all("trials").query("group == 'worst' and split == 'val'")
    assert trials["experiment"].str.endswith("-lds").all()
    assert sorted(trials[["method", "num_removed", "seed"]].itertuples(index=False, name=None)) == [
        ("random", 80, seed) for seed in range(5)
    ]
    removed = measured.read_all("removals").groupby("trial_key")["example_id"].apply(frozenset)
    assert len(set(removed)) == 5


def test_the_score_is_the_rank_correlation_of_foretold_and_retrained_margins(measured):
    splits = load_splits(SMALL.experiment.corpus_options)
    of_trak = measured.read_all("query_scores").query("method == 'trak'")
    scores = of_trak.pivot(index="example_id", columns="query_id", values="score")
    trials = measured.read_all("trials").query("group == 'worst' and split == 'val'")
    removed = measured.read_all("removals").groupby("trial_key")["example_id"].apply(set)
    fits = measured.read_all("fits").query("split == 'val'").set_index(["fit_key", "example_id"])["margin"]
    found = measured.read_all("lds").query("method == 'trak'").set_index(["kind", "target"])["lds"]

    def predicted(columns) -> list[float]:
        total = scores[columns].mean(axis=1)
        return [total[~total.index.isin(removed[key])].sum() for key in trials["trial_key"]]

    query = splits.val.example_ids[7]
    actual = [fits[key, query] for key in trials["fit_key"]]
    assert found["query", query] == pytest.approx(spearmanr(predicted([query]), actual).statistic)

    members = splits.val.example_ids[splits.val.groups == 1]
    actual = [np.mean([fits[key, member] for member in members]) for key in trials["fit_key"]]
    expected = spearmanr(predicted(members), actual).statistic
    assert found["group", splits.group_names[1]] == pytest.approx(expected)
    assert found["query", "mean"] == pytest.approx(found["query"].drop("mean").mean())


def test_another_target_is_foretold_and_measured(measured):
    """Of retrained models minus the loss, whose scores are weighed; the fits are those of the margin's LDS."""
    splits, stored = load_splits(SMALL.experiment.corpus_options), measured.keys("fits")
    experiment = dataclasses.replace(SMALL.experiment, methods=("embedding",), alignment=AlignmentConfig(target="loss"))
    run(dataclasses.replace(SMALL, experiment=experiment), measured)
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
    predicted = [total[~total.index.isin(removed[key])].sum() for key in configuration["fits"]]
    actual = [-np.log1p(np.exp(-fits[key][members])).mean() for key in configuration["fits"]]
    found = measured.read("lds", key, "embedding").set_index(["kind", "target"])["lds"]
    assert found["group", splits.group_names[1]] == pytest.approx(spearmanr(predicted, actual).statistic)


def test_the_number_of_retrains_stands_beside_each_score(measured):
    rows = measured.read_all("lds")
    assert (rows["num_subsets"] == 5).all()
    assert set(rows["method"]) == {"trak", "embedding", "random"}
    assert rows["lds"].notna().mean() > 0.9
    assert rows[["lds_low", "lds_high"]].isna().all(axis=None), "of five subsets there is no interval to tell"
    assert rows.groupby("method")["target"].nunique().eq(40 + 4 + 1).all()


def test_more_subsets_and_methods_train_only_what_is_new(measured, monkeypatch):
    stored = measured.keys("fits")
    trained = []
    original = engine_module.run_fit
    monkeypatch.setattr(engine_module, "run_fit", lambda c, spec: (trained.append(spec), original(c, spec)))
    run(SMALL, measured)
    assert trained == []
    methods = dataclasses.replace(SMALL.experiment, methods=("loss",))
    run(dataclasses.replace(SMALL, experiment=methods, num_subsets=6), measured)
    assert measured.keys("fits") > stored
    assert [spec.seed for spec in trained if spec.fit_key not in stored] == [5]


def test_a_method_that_fails_ends_only_itself(measured, monkeypatch):
    def fails(inputs, settings, pool):
        raise RuntimeError("made up")

    monkeypatch.setitem(METHODS, "ekfac", dataclasses.replace(METHODS["ekfac"], score_queries=fails))
    config = dataclasses.replace(SMALL, experiment=dataclasses.replace(SMALL.experiment, methods=("ekfac", "bm25")))
    outcome = run(config, measured)
    assert [(each.name, each.error) for each in outcome.unscored] == [("ekfac", "RuntimeError: made up")]
    assert {"bm25"} < set(measured.read_all("lds")["method"])
    assert "ekfac" not in set(measured.read_all("lds")["method"])


def test_too_few_subsets_say_why(tmp_path, monkeypatch):
    def diverges(context, spec):
        raise FloatingPointError("the loss is not finite")

    monkeypatch.setattr(engine_module, "run_fit", diverges)
    with pytest.raises(RunError, match="at least 3 subsets, 0 could be trained: 6 fits: FloatingPointError"):
        run(SMALL, Store(tmp_path))


def test_what_is_no_attribution_method_is_refused():
    with pytest.raises(InputError, match="attribution method, received 'random_majority'; they are trak, ekfac"):
        LdsConfig(dataclasses.replace(SMALL.experiment, methods=("random_majority",)))
    with pytest.raises(InputError, match="--num-subsets is at least 3, received 2"):
        dataclasses.replace(SMALL, num_subsets=2)


@pytest.mark.slow
def test_scores_of_gradients_foretell_retraining_better_than_chance(tmp_path):
    """On planted text, of TRAK and of EK-FAC: an interval above zero, and a score well above that of chance."""
    options = PlantedOptions(seed=11)
    training = TrainingConfig(num_epochs=3, learning_rate=1e-3, final_model="last")
    experiment = dataclasses.replace(
        SMALL.experiment,
        corpus_options=options,
        methods=("trak", "ekfac", "random"),
        training=training,
        trak=TrakConfig(),
    )
    store = Store(tmp_path)
    run(LdsConfig(experiment, num_subsets=24), store)
    means = store.read_all("lds").query("target == 'mean'").set_index(["method", "kind"])
    of_chance = means.loc[("random", "query")]
    assert of_chance["lds_low"] < 0 < of_chance["lds_high"], means
    for method in ("trak", "ekfac"):
        assert means.loc[(method, "query"), "lds_low"] > 0, means
        assert means.loc[(method, "query"), "lds"] > of_chance["lds"] + 0.1, means
