"""What removal does to losses and accuracies, and by how much common pairing shrinks its noise: from a store alone.

Shapes: S seeds.

The experiments of one corpus, model and training differ by target, pairing or methods; their fits may be shared.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tyro
from scipy import stats

import d3m_ray
from d3m_ray.store.store import Store

MEASURES = {
    "val loss": ("val", "all", "loss"),
    "test loss": ("test", "all", "loss"),
    "test accuracy": ("test", "all", "accuracy"),
    "test WGA": ("test", "worst", "accuracy"),
    "worst cell, test": ("test", "worst_cell", "accuracy"),
    "val WGA": ("val", "worst", "accuracy"),
}
STUDY = ("data_hash", "model_hash", "trak", "ekfac", "metagradient", "selection", "num_checkpoints", "protocol")
FREE = {"training": ("pairing", "step_matched"), "alignment": ("target", "worst_loss_beta")}
"""By group of settings, those in which the experiments of one study may differ."""
ARM = ["target", "method", "num_removed"]
MIN_PAIRS = 3  # below, an interval tells nothing


def main(store: Path, experiments: tuple[str, ...] = (), out: Path | None = None) -> None:
    """Print, as Markdown, each arm less random removal and less nothing, and the variance ratios of the pairings.

    `experiments` are those of one study, left out all of the store; `out` is a CSV file for the differences.
    """
    values = measured(store, experiments)
    tables = {f"less {name}": differences(values, reference) for name, reference in REFERENCES.items()}
    for name, table in tables.items():
        print(f"\n### {name}: mean +- half of the 95% t interval over seeds\n")
        print(as_markdown(table))
    print("\n### Variance over seeds of a fit less the full split's: independent over common pairing\n")
    print(as_markdown(variance_ratios(values)))
    if out is not None:
        pd.concat([table.assign(reference=name) for name, table in tables.items()]).to_csv(out, index=False)


def measured(store: Path, experiments: Iterable[str]) -> pd.DataFrame:
    """One row per pairing, target, method, number removed and seed: each of `MEASURES` as a column."""
    records, names = Store(store).read_experiments(), tuple(experiments)
    frames = []
    asked = {name: record for name, record in records.items() if not names or name in names}
    check_one_study({name: record.configuration for name, record in asked.items()})
    for name, record in asked.items():
        trials = d3m_ray.read_trials(store, name)
        settings = record.configuration
        row = {
            "pairing": settings["training"].get("pairing", "independent"),
            "target": settings["alignment"].get("target", "margin"),
        }
        columns = {
            measure: trials.query("split == @split and `group` == @group").set_index(["method", "num_removed", "seed"])[
                metric
            ]
            for measure, (split, group, metric) in MEASURES.items()
        }
        frames.append(pd.DataFrame(columns).reset_index().assign(**row))
    rows = pd.concat(frames, ignore_index=True)
    # Neither what is drawn at random nor the full split's fit depends on a target: the experiments share them.
    rows.loc[(rows["method"] == "random") | (rows["num_removed"] == 0), "target"] = "none"
    rows.loc[rows["num_removed"] == 0, "method"] = "nothing"
    return rows.drop_duplicates(["pairing", *ARM, "seed"])


def check_one_study(configurations: Mapping[str, Mapping[str, Any]]) -> None:
    """Ends the program where experiments differ by more than targets and pairing: their trials are no pairs then."""
    first_name, *others = configurations
    first = _all_but_target_and_pairing(configurations[first_name])
    for name in others:
        other = _all_but_target_and_pairing(configurations[name])
        differing = sorted(key for key in {*first, *other} if first.get(key) != other.get(key))
        if differing:
            sys.exit(
                f"experiments of one study differ by target and pairing alone; {name} and {first_name} differ in "
                f"{', '.join(differing)}: name those of one study with --experiments"
            )


def _all_but_target_and_pairing(configuration: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: configuration.get(name) for name in STUDY}
    for group, names in FREE.items():
        of_group = configuration.get(group, {})
        settings[group] = {name: value for name, value in of_group.items() if name not in names}
    return settings


def _less_random(arm: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["method"] == "random") & (rows["num_removed"] == arm["num_removed"].iloc[0])]


def _less_nothing(arm: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["method"] == "nothing"]


REFERENCES = {"random removal of as many": _less_random, "nothing removed": _less_nothing}


def _paired(values: pd.DataFrame, reference) -> Iterator[tuple[tuple, pd.DataFrame]]:  # type: ignore[no-untyped-def]
    """By (pairing, target, method, number), the differences [S, measures] over the seeds that both have."""
    for pairing, rows in values.groupby("pairing"):
        for names, arm in rows[rows["method"] != "nothing"].groupby(ARM):
            others = reference(arm, rows).set_index("seed")[list(MEASURES)]
            yield (pairing, *names), (arm.set_index("seed")[list(MEASURES)] - others).dropna()


def differences(values: pd.DataFrame, reference) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    """One row per arm: the mean difference to the reference with half of its 95% t interval, by measure."""
    rows = []
    for (pairing, target, method, number), pairs in _paired(values, reference):
        if len(pairs) < MIN_PAIRS or (method == "random" and reference is _less_random):
            continue
        half = stats.t.ppf(0.975, len(pairs) - 1) * pairs.std(ddof=1) / np.sqrt(len(pairs))
        told = {name: f"{pairs[name].mean():+.3f} +- {half[name]:.3f}" for name in MEASURES}
        start = {"pairing": pairing, "method": method, "target": target, "k": number}
        rows.append({**start, "seeds": len(pairs), **told})
    return pd.DataFrame(rows)


def variance_ratios(values: pd.DataFrame) -> pd.DataFrame:
    """One row per arm that both pairings have: the ratio of variances of its change, so of fits for one interval."""
    spread = {names: pairs.var(ddof=1) for names, pairs in _paired(values, _less_nothing) if len(pairs) >= MIN_PAIRS}
    rows = []
    for (pairing, target, method, number), common in spread.items():
        independent = spread.get(("independent", target, method, number))
        if pairing == "common" and independent is not None:
            ratios = {name: f"{independent[name] / common[name]:.1f}" for name in MEASURES}
            rows.append({"method": method, "target": target, "k": number, **ratios})
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    """The table in Markdown."""
    rows = [table.columns, ["---"] * table.shape[1], *table.astype(str).to_numpy()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    tyro.cli(main)
