"""What removal changes, held against a loop over the trials of a made-up store."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from d3m_ray.analysis.removal_effects import effect_table
from d3m_ray.analysis.results import Results


def value(results: Results, split: str, trial: tuple[str, int, int], effect_on: str) -> float:
    """What a trial comes to; the made-up alignments weigh the groups alike."""
    method, number, seed = trial
    rows = results.trials_of(split)
    rows = rows[(rows["method"] == method) & (rows["num_removed"] == number) & (rows["seed"] == seed)]
    rows = rows.set_index("group")
    if effect_on == "target":
        return float(rows.loc[sorted(set(results.examples["group"])), "margin"].mean())
    return float(rows.loc["all", "loss"] if effect_on == "loss" else rows.loc["worst", "accuracy"])


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("effect_on", ["target", "loss", "wga"])
@pytest.mark.parametrize("reference", ["random", "base"])
def test_an_effect_is_the_mean_over_the_pairs_of_seeds(
    results: Results, split: str, effect_on: str, reference: str
) -> None:
    method = next(iter(results.alignments))
    number = int(results.fits.query("method == @method and num_removed > 0")["num_removed"].min())
    seeds = sorted(results.fits.query("method == @method and num_removed == @number")["seed"])
    other = ("random", number) if reference == "random" else (method, 0)
    differences = [
        value(results, split, (method, number, seed), effect_on) - value(results, split, (*other, seed), effect_on)
        for seed in seeds
    ]
    table = effect_table(results).set_index(["method", "num_removed", "reference", "split", "effect_on"])
    row = table.loc[(method, number, reference, split, effect_on)]
    assert row["effect"] == pytest.approx(np.mean(differences))
    assert row["num_pairs"] == len(seeds)
    if len(seeds) >= 5:
        low, high = stats.t.interval(0.95, len(seeds) - 1, np.mean(differences), stats.sem(differences))
        assert (row["effect_low"], row["effect_high"]) == (pytest.approx(low), pytest.approx(high))
    else:
        assert np.isnan([row["effect_low"], row["effect_high"]]).all()


@pytest.mark.parametrize(("target", "metric", "sign"), [("loss", "loss", -1), ("probability", "soft_accuracy", 1)])
def test_the_target_is_that_of_the_experiment(results: Results, target: str, metric: str, sign: int) -> None:
    record = dataclasses.replace(
        results.record, configuration={**results.configuration, "alignment": {"target": target}}
    )
    table = effect_table(Results(results.store, record, results.all_trials))
    method = next(iter(results.alignments))
    row = table.query("method == @method and reference == 'base' and split == 'test' and effect_on == 'target'").iloc[0]
    rows = results.trials[results.trials["group"].isin(results.examples["group"].unique())]
    means = rows.groupby(["method", "num_removed", "seed"])[metric].mean()
    changes = means[method][row["num_removed"]] - means[method][0]
    assert row["effect"] == pytest.approx(sign * changes.mean())


def test_nothing_is_said_without_alignments(results: Results, other_results) -> None:
    assert effect_table(other_results(alignments={})).empty
