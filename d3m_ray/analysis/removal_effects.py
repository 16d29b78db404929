"""What removal by a method's alignment changes: its target, the loss and worst-group accuracy, on val and on test."""

from collections.abc import Iterator, Mapping

import pandas as pd

from d3m_ray.analysis.choice import REFERENCE_METHOD, WORST
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import t_interval

SPLITS = ("val", "test")
BASE = "base"
METRICS_OF_TARGETS = {
    "margin": ("margin", 1.0),
    "loss": ("loss", -1.0),
    "worst_loss": ("loss", -1.0),
    "probability": ("soft_accuracy", 1.0),
}
"""By target, the metric of a group that it is the mean of, and its sign: a target is raised by what helps."""
COLUMNS = [
    *("method", "num_removed", "reference", "split", "effect_on"),
    *("effect", "effect_low", "effect_high", "num_pairs"),
]


VALUE_COLUMNS = [*COLUMNS[:5], "seed", "effect"]
EFFECTS = ("target", "loss", "wga")


@once
def effect_table(results: Results) -> pd.DataFrame:
    """One row per method with an alignment, number removed, reference, split and what is changed.

    `effect_on` is `target` (the sum over groups of the target's mean, in the weights that the alignment has), `loss`
    (mean over all examples, in nats) or `wga` (worst-group accuracy). `effect` is the mean over the seeds of the value
    where the examples of lowest alignment went, less that of the `reference` at the same seed: `random` removal of as
    many, or `base`, the model of everything. `effect_low` and `effect_high` are Student's 95% interval over the
    `num_pairs` seeds, from five on.
    """
    rows = []
    for names, of_arm in effect_values(results).groupby(COLUMNS[:5], sort=False):
        interval = t_interval(of_arm["effect"])
        bounds = (interval.mean, interval.low, interval.high, interval.num_values)
        rows.append(dict(zip(COLUMNS, (*names, *bounds), strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


@once
def effect_values(results: Results) -> pd.DataFrame:
    """One row per row of `effect_table` and `seed`: its `effect` under that seed, where it is known."""
    rows = [values for method in results.alignments for values in _effects_of(method, results)]
    empty = pd.DataFrame(columns=VALUE_COLUMNS)
    return pd.concat(rows, ignore_index=True)[VALUE_COLUMNS] if rows else empty


def _effects_of(method: str, results: Results) -> Iterator[pd.DataFrame]:
    for split in SPLITS:
        trials = results.trials_of(split)
        if trials.empty:
            continue
        values = _values(trials, results.target, _weights(method, results))
        arms = values[(values["method"] == method) & (values["num_removed"] > 0)]
        base = _base_values(values, results)
        for number, arm in arms.groupby("num_removed"):
            at_random = values[(values["method"] == REFERENCE_METHOD) & (values["num_removed"] == number)]
            for reference, rows in ((REFERENCE_METHOD, at_random), (BASE, base)):
                pairs = arm.merge(rows, on="seed", suffixes=("", "_of_reference"))
                pairs = pairs[pairs["fit_key"] != pairs["fit_key_of_reference"]]
                for name in EFFECTS:
                    effects = pairs[["seed"]].assign(effect=pairs[name] - pairs[f"{name}_of_reference"]).dropna()
                    if len(effects):
                        yield effects.assign(
                            method=method,
                            num_removed=int(str(number)),
                            reference=reference,
                            split=split,
                            effect_on=name,
                        )


def _weights(method: str, results: Results) -> Mapping[str, float]:
    """The weight of each group in an alignment; none where its file cannot be read any more."""
    key = results.record.keys["alignments"][method]
    made_with = results.made_with("alignments", key, method)
    return dict(zip(made_with.get("group_names", ()), made_with.get("group_weights", ()), strict=False))


def _values(trials: pd.DataFrame, target: str, weights: Mapping[str, float]) -> pd.DataFrame:
    """One row per trial: `method`, `num_removed`, `seed`, `fit_key`, `target`, `loss` and `wga`.

    `target` is NaN where the weights are of no groups of the trials, as those of pseudo-groups are.
    """
    trial = ["method", "num_removed", "seed", "fit_key"]
    metric, sign = METRICS_OF_TARGETS[target]
    metrics = list(dict.fromkeys(["loss", "accuracy", metric]))
    by_group = trials.pivot(index=trial, columns="group", values=metrics)
    values = pd.DataFrame(
        {"loss": by_group["loss"]["all"], "wga": by_group["accuracy"][WORST]}, index=by_group.index
    ).assign(target=float("nan"))
    if weights and set(weights) <= set(by_group[metric].columns):
        weighed = (weight * by_group[metric][group] for group, weight in weights.items())
        values["target"] = sign * sum(weighed, start=pd.Series(0.0, index=by_group.index))
    return values.reset_index()


def _base_values(values: pd.DataFrame, results: Results) -> pd.DataFrame:
    """The rows of the models of everything, one per seed."""
    keys = list(results.base_fits.values())
    return values[(values["num_removed"] == 0) & values["fit_key"].isin(keys)].drop_duplicates("seed")
