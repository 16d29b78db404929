"""The leaderboard end to end on planted text: two studies of one experiment, each number that of its own trials."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from d3m_ray.analysis.comparison import removed_table
from d3m_ray.analysis.contrasts import contrast_table
from d3m_ray.analysis.lds import lds_table
from d3m_ray.analysis.leaderboard import leaderboard_table
from d3m_ray.analysis.output import write_tables
from d3m_ray.analysis.report.sections import result_sections
from d3m_ray.analysis.results import Results, read_results
from d3m_ray.analysis.summary import summary_table
from d3m_ray.data.planted import Planted
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.lds import another_study, joined, prepare_lds, run_lds
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.studies import LeaderboardConfig
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.engine import LocalEngine

SMALL = LeaderboardConfig(
    ExperimentConfig(
        corpus=Planted(num_train=80, num_val=40, num_test=40),
        model="tiny",
        methods=("tracin", "embedding"),
        num_checkpoints=1,
        training=TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
    ),
    num_same_seed_subsets=3,
    num_across_seeds_subsets=3,
    removal_shares=("10%",),
    removal_seeds=(100, 101),
)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Results:
    store = Store(tmp_path_factory.mktemp("leaderboard"))
    across_seeds, same_seed = SMALL.studies()
    with Progress() as progress:
        first = prepare_lds(across_seeds, store, progress)
        studies = [first, another_study(first, same_seed)]
        outcome = joined([run_lds(study, LocalEngine(), progress) for study in studies])
    assert (outcome.failed, outcome.unscored) == ([], ())
    return read_results(store)[0]


def test_every_method_stands_in_it_by_both_studies_and_by_removal(results):
    table = leaderboard_table(results).set_index("method")
    assert set(table.index) == {"tracin", "embedding"}
    means = lds_table(results).query("target == 'mean' and kind == 'alignment'")
    means = means.set_index(["subset_seeds", "method"])["lds"]
    for seeds, name in (("base", "same_seed_alignment_lds"), ("own", "across_seeds_alignment_lds")):
        np.testing.assert_allclose(table[name], means[seeds][table.index])
    trials = results.trials.query("group == 'all' and num_removed == 8").set_index(["method", "seed"])["loss"]
    for method in table.index:
        expected = (trials[method] - trials["random"]).mean()
        assert table.loc[method, "loss_effect"] == pytest.approx(expected)


def test_the_same_seed_score_is_that_of_a_loop_over_the_stored_fits(results):
    alignment = results.alignments["tracin"].set_index("example_id")["alignment"]
    store, rows = results.store, results.lds.query("method == 'tracin' and kind == 'alignment'")
    (row,) = rows.query("subset_seeds == 'base'").to_dict("records")
    made = store.read_metadata("alignments", results.record.keys["alignments"]["tracin"], "tracin")["configuration"]
    weights = dict(zip(made["group_names"], made["group_weights"], strict=True))
    fits = store.read_metadata("lds", row["lds_key"], "tracin")["configuration"]["fits"]
    predicted, retrained = [], []
    trials = results.all_trials.query("seed >= 1_000_000_000").drop_duplicates("trial_key").set_index("fit_key")
    assert set(trials.index) == set(fits)
    for fit_key in fits:
        removed = store.read("removals", trials.loc[fit_key, "trial_key"], "random")["example_id"]
        predicted.append(alignment.drop(removed).sum())
        of_val = store.read("fits", fit_key).query("split == 'val'")
        values = of_val["margin"] if results.target == "margin" else -np.log1p(np.exp(-of_val["margin"]))
        retrained.append(sum(weights[group] * mean for group, mean in values.groupby(of_val["group"]).mean().items()))
    assert row["lds"] == pytest.approx(spearmanr(predicted, retrained).statistic)


def test_subsets_are_trials_and_no_arm(results):
    assert len(results.fits.query("seed >= 1_000_000")) == 3 * 2 + 3
    arms = {("tracin", 8), ("embedding", 8), ("random", 8)}
    summary = summary_table(results).query("num_removed > 0")
    assert set(summary[["method", "num_removed"]].itertuples(index=False, name=None)) == arms
    assert set(summary["num_seeds"]) == {2}, "a tenth is removed at random by both: the arm has its own seeds alone"
    assert set(removed_table(results).query("method == 'random'")["num_removed"]) == {8}
    assert contrast_table(results)["num_pairs"].max() == 2


def test_the_page_and_the_files_have_it(results, tmp_path: Path):
    (section,) = result_sections(results)
    (view,) = (view for view in section.tables if view.id == "leaderboard")
    assert len(view.rows) == 2
    assert {"method", "across_seeds_alignment_lds", "loss_effect"} <= {column.name for column in view.columns}
    assert "leaderboard.csv" in write_tables(results, tmp_path)
    markdown = (tmp_path / "leaderboard.md").read_text()
    assert (
        "same seeds, 90% of train kept, 3 subsets x 1 fit; across seeds, 50% of train kept, 3 subsets x 2" in markdown
    )


def test_a_seed_of_subsets_is_no_seed_of_arms():
    with pytest.raises(InputError, match="each of --seeds is below 1000000"):
        dataclasses.replace(SMALL.experiment, seeds=(0, 1_000_000))
