"""Experiments in memory, of which it is known whether an arm has an effect: hundreds of them in a minute.

Shapes: F fits, Q examples of one split. An example is answered right where difficulty + group + luck + noise is above
zero. The luck of a fit is the same on val and on test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from d3m_ray.analysis.results import Answers, Results
from d3m_ray.store.experiments import Experiment
from d3m_ray.store.store import Store

GROUPS = ("ant", "bee", "cat", "dog")
LABEL_NAMES = ("kind", "rude")
GROUP_LEVELS = (1.0, 0.9, 0.8, 0.6)
Fit = tuple[str, int, int]  # method, number removed, seed
CREATED_AT = pd.Timestamp("2026-01-02 03:04:05", tz="UTC")


@dataclass(frozen=True)
class Simulated:
    """What is simulated."""

    methods: Sequence[str] = ("trak", "ekfac", "embedding")
    numbers: Sequence[int] = (50, 100, 200)
    num_seeds: int = 6
    num_test: int = 800
    num_val: int = 400
    group_levels: Sequence[float] = GROUP_LEVELS
    luck: float = 0.1
    """Standard deviation of what a fit is better by, in all groups, and again in each."""
    noise: float = 0.5
    """Of what is of one fit and one example. Difficulties have a standard deviation of 1."""
    fixed: float = 0.0
    """Of what is of one example and one arm under every seed, and of random removal, drawn under each: no effect in the
    population of examples, but one on those of the test set."""
    gains: Mapping[tuple[str, int], float] | None = None
    """By arm, what it adds to the worst group's accuracy, about."""


def simulate(made: Simulated, draw: int, folder: Path) -> Results:
    """One experiment; `folder` is that of a store without anything in it."""
    rng = np.random.default_rng(draw)
    arms = [(method, number) for method in (*made.methods, "random") for number in made.numbers]
    fits = [("base", 0, seed) for seed in range(made.num_seeds)]
    fits += [(method, number, seed) for (method, number), seed in product(arms, range(made.num_seeds))]
    luck = rng.normal(0, made.luck, (len(fits), 1)) + rng.normal(0, made.luck, (len(fits), len(GROUPS)))
    for row, (method, number, _) in enumerate(fits):
        luck[row, -1] += (made.gains or {}).get((method, number), 0.0) / 0.3  # of the normal density, about
    frames = []
    for split, size in (("val", made.num_val), ("test", made.num_test)):
        cells = np.arange(size) % (len(GROUPS) * len(LABEL_NAMES))
        groups, labels = cells // len(LABEL_NAMES), cells % len(LABEL_NAMES)
        is_right = _answers(made, fits, luck + made.group_levels, groups, rng)
        frames.append(_trials(fits, is_right, groups, labels).assign(split=split))
    examples = pd.DataFrame(
        {"example_id": np.arange(size).astype(str), "group": np.array(GROUPS)[groups], "label": labels}
    )
    record = Experiment("simulated", {"dataset": "insects", "model": "none", "label_names": list(LABEL_NAMES)}, ())
    results = Results(Store(folder), record, pd.concat(frames, ignore_index=True))
    keys = ["-".join(map(str, fit)) for fit in fits]
    vars(results)["answers"] = Answers(examples, dict(zip(keys, is_right, strict=True)))
    return results


def _answers(
    made: Simulated,
    fits: Sequence[Fit],
    levels: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """[F, Q] bool."""
    shape = (len(fits), len(groups))
    latent = rng.normal(size=len(groups)) + levels[:, groups] + rng.normal(0, made.noise, shape)
    if made.fixed:
        own = rng.normal(0, made.fixed, shape)
        for row, (method, number, seed) in enumerate(fits):
            if seed and method not in ("random", "base"):
                own[row] = own[fits.index((method, number, 0))]
        latent += own
    return latent > 0


def _trials(fits: Sequence[Fit], is_right: np.ndarray, groups: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """The rows of one split's trials, as `group_metrics` orders them, accuracy alone."""
    cells = [(group, label) for group in range(len(GROUPS)) for label in range(len(LABEL_NAMES))]
    subsets = [groups == group for group in range(len(GROUPS))]
    subsets += [(groups == group) & (labels == label) for group, label in cells]
    accuracies = np.stack([is_right[:, subset].mean(axis=1) for subset in subsets], axis=1)
    of_groups, of_cells = accuracies[:, : len(GROUPS)], accuracies[:, len(GROUPS) :]
    summaries = [is_right.mean(axis=1), of_groups.min(axis=1), of_cells.min(axis=1)]
    names = [*GROUPS, *(f"{GROUPS[g]}/{LABEL_NAMES[label]}" for g, label in cells), "all", "worst", "worst_cell"]
    sizes = [int(subset.sum()) for subset in subsets]
    sizes += [len(groups), sizes[0], sizes[-1]]
    of_fits = np.repeat(np.array(fits, dtype=object), len(names), axis=0)
    keys = np.repeat(["-".join(map(str, fit)) for fit in fits], len(names))
    return pd.DataFrame(
        {
            "method": np.where(of_fits[:, 0] == "base", "random", of_fits[:, 0]),
            "num_removed": of_fits[:, 1].astype(int),
            "seed": of_fits[:, 2].astype(int),
            "group": np.tile(names, len(fits)),
            "num_examples": np.tile(sizes, len(fits)),
            "accuracy": np.concatenate([accuracies, np.stack(summaries, axis=1)], axis=1).ravel(),
            "trial_key": keys,
            "fit_key": keys,
            "objective": "erm",
            "train_seconds": 1.0,
            "num_train": 1000,
            "num_steps": 30,
            "created_at": CREATED_AT,
        }
    )
