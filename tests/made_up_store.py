"""A whole store without any training: fits drawn from known accuracies, trials computed from them as the engine does.

Texts are harmless. Group, label and method names are the caller's, so that tests can make them as odd as users do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.metrics.groups import group_metrics
from d3m_ray.records import Examples, Predictions
from d3m_ray.store.store import Store

CREATED_AT = pd.Timestamp("2026-01-02 03:04:05", tz="UTC")
GROUPS = ("ant", "bee", "cat", "dog")
NUMBERS = (50, 100, 200)
PLACES = ("harbour", "meadow", "valley", "orchard", "garden")

STUDY: Mapping[str, Any] = {
    "keep_share": 0.5,
    "subset_seeds": "own",
    "fits_per_subset": 2,
    "fit_correlation": 0.4,
    "fit_correlation_low": 0.1,
    "fit_correlation_high": 0.6,
    "ceiling": 0.756,
    "ceiling_low": 0.426,
    "ceiling_high": 0.866,
}
"""What the rows of an LDS say of its subsets: halves of two fits each."""

Gain = Callable[[str, int], float]
"""(method, number removed) -> what it adds to the accuracy of the worst group, the last one."""


@dataclass(frozen=True)
class MadeUp:
    """What a made-up experiment consists of."""

    name: str = "insects-1a2b3c4d"
    groups: Sequence[str] = GROUPS
    label_names: Sequence[str] = ("kind", "rude")
    methods: Sequence[str] = ("trak", "ekfac", "random")
    rules: Mapping[str, tuple[int, str]] = field(default_factory=lambda: {"balanced": (120, "erm")})
    """Arms of one number removed: that number and their objective."""
    numbers: Sequence[int] = NUMBERS
    seeds: Sequence[int] = tuple(range(6))
    num_train: int = 600
    num_val: int = 400
    num_test: int = 800
    accuracy: float = 0.8
    """Of every group but the last, which has ten points less."""
    seed_noise: float = 0.02
    """Standard deviation of a fit's accuracy in each group."""
    has_texts: bool = True
    draw: int = 0
    """Another number is another drawing of the same experiment."""


def no_gain(method: str, number: int) -> float:
    """Nothing helps: the null store."""
    return 0.0


def make_examples(made: MadeUp, split: str, number: int, rng: np.random.Generator) -> Examples:
    num_labels = len(made.label_names)
    cells = np.arange(number) % (len(made.groups) * num_labels)  # every cell has examples
    words = rng.choice(PLACES, size=(number, 3))
    return Examples(
        split=split,
        example_ids=np.array([f"{split}/{row}" for row in range(number)]),
        texts=tuple(f"{split} {row}: the {' and the '.join(of_row)}" for row, of_row in enumerate(words)),
        labels=cells % num_labels,
        groups=cells // num_labels,
    )


def draw_predictions(made: MadeUp, examples: Examples, gain: float, rng: np.random.Generator) -> Predictions:
    """Answers that are right with the group's accuracy, noise of the fit and the gain of the last group added."""
    accuracies = np.full(len(made.groups), made.accuracy) + rng.normal(0, made.seed_noise, len(made.groups))
    accuracies[-1] += gain - 0.1
    is_right = rng.random(len(examples)) < np.clip(accuracies, 0.02, 0.98)[examples.groups]
    num_labels = len(made.label_names)
    wrong = (examples.labels + rng.integers(1, num_labels, len(examples))) % num_labels
    margins = np.where(is_right, 1, -1) * rng.uniform(0.1, 3, len(examples))
    of_label_1 = 1 / (1 + np.exp(np.where(examples.labels == 1, -margins, margins)))
    return Predictions(
        labels=examples.labels,
        margins=margins.astype(np.float32),
        predicted=np.where(is_right, examples.labels, wrong),
        probabilities=(of_label_1 if num_labels == 2 else np.full(len(examples), np.nan)).astype(np.float32),
    )


def fill_store(store: Store, made: MadeUp | None = None, gain: Gain = no_gain) -> MadeUp:
    """Write every table of a finished experiment: record, examples, scores, alignments, fits, trials, removals."""
    made = made or MadeUp()
    rng = np.random.default_rng([made.draw, 1])
    splits = {
        name: make_examples(made, name, number, rng)
        for name, number in (("train", made.num_train), ("val", made.num_val), ("test", made.num_test))
    }
    attribution = [method for method in made.methods if method != "random"]
    write_record(store, made, attribution)
    write_examples(store, made, splits)
    alignments = {method: write_scores(store, made, method, splits["train"], rng) for method in attribution}
    for seed in made.seeds:
        write_trials(store, made, splits, seed, alignments, gain)
    return made


def write_record(store: Store, made: MadeUp, attribution: Sequence[str]) -> None:
    plan: list[tuple[str, int | None, int]] = [
        (method, number, seed) for number in (0, *made.numbers) for seed in made.seeds for method in made.methods
    ]
    plan += [(rule, None, seed) for rule in made.rules for seed in made.seeds]
    configuration = {
        "dataset": made.name.partition("-")[0],
        "model": "tiny-bert",
        "data_hash": f"data-{made.name}",
        "model_hash": "model",
        "label_names": list(made.label_names),
        "num_dropped": {"a repeated text": 3},
        "notes": ["labels are words"],
        "corpus": {"data": "insects"},
        "training": {"num_epochs": 3, "learning_rate": 5e-5, "batch_size": 32},
        "num_checkpoints": 1,
        "protocol": "standard",
    }
    of_method = {method: f"scores-{made.name}-{method}" for method in attribution}
    keys = {
        "fits": {"base model, seed 0": fit_key(made, "base", 0, made.seeds[0])},
        "scores": of_method,
        "alignments": {method: f"alignment-{made.name}-{method}" for method in attribution},
    }
    store.write_experiment(made.name, configuration, plan, keys)


def write_examples(store: Store, made: MadeUp, splits: Mapping[str, Examples]) -> None:
    frames = [
        pd.DataFrame(
            {
                "data_hash": f"data-{made.name}",
                "split": split,
                "example_id": examples.example_ids,
                "group": np.array(made.groups)[examples.groups],
                "label": examples.labels,
                "label_name": np.array(made.label_names)[examples.labels],
                "text": examples.texts if split == "train" and made.has_texts else None,
            }
        )
        for split, examples in splits.items()
    ]
    rows = pd.concat(frames, ignore_index=True).astype({"text": "str"})
    store.write("examples", f"data-{made.name}", rows, {})


def write_scores(store: Store, made: MadeUp, method: str, train: Examples, rng: np.random.Generator) -> np.ndarray:
    """Scores and alignment [N] of a method; those of each two methods are correlated, low for the last group."""
    shared = np.random.default_rng([made.draw, 2]).normal(size=(len(train), len(made.groups)))
    scores = (shared + rng.normal(size=shared.shape) - 0.5 * (train.groups == len(made.groups) - 1)[:, None]).astype(
        np.float32
    )
    key = f"scores-{made.name}-{method}"
    configuration = {"attribution": method, "coverage": 1.0, "scoring_seconds": 2.5, "query_split": "val"}
    store.write_scores("scores", key, scores, train.example_ids, made.groups, configuration, method)
    alignment = scores.astype(np.float64).mean(axis=1)
    rows = pd.DataFrame(
        {
            "alignment_key": f"alignment-{made.name}-{method}",
            "example_id": train.example_ids,
            "group": np.array(made.groups)[train.groups],
            "label": train.labels,
            "alignment": alignment,
        }
    )
    weights = {"group_names": list(made.groups), "group_weights": [1 / len(made.groups)] * len(made.groups)}
    store.write("alignments", f"alignment-{made.name}-{method}", rows, {**configuration, **weights}, method)
    return alignment


def write_trials(
    store: Store,
    made: MadeUp,
    splits: Mapping[str, Examples],
    seed: int,
    alignments: Mapping[str, np.ndarray],
    gain: Gain,
) -> None:
    base = write_fit(store, made, splits, ("base", 0, seed), 0.0)
    for method in made.methods:
        write_trial(store, made, (method, 0, seed), base, "erm", [])
        for number in made.numbers:
            rng = np.random.default_rng([made.draw, number, seed])
            chosen = np.argsort(alignments[method]) if method in alignments else rng.permutation(made.num_train)
            fit = write_fit(store, made, splits, (method, number, seed), gain(method, number))
            write_trial(store, made, (method, number, seed), fit, "erm", splits["train"].example_ids[chosen[:number]])
    for rule, (number, objective) in made.rules.items():
        rng = np.random.default_rng([made.draw, number, seed, 1])
        fit = write_fit(store, made, splits, (rule, number, seed), gain(rule, number))
        removed = splits["train"].example_ids[np.sort(rng.permutation(made.num_train)[:number])]
        write_trial(store, made, (rule, number, seed), fit, objective, removed)


Trial = tuple[str, int, int]
Fitted = tuple[str, pd.DataFrame]


def fit_key(made: MadeUp, method: str, number: int, seed: int) -> str:
    return f"fit-{made.name}-{method}-{number}-{seed}"


def write_fit(store: Store, made: MadeUp, splits: Mapping[str, Examples], trial: Trial, gain: float) -> Fitted:
    """Draw and store one fit; its key, and the metrics of val and test."""
    method, number, seed = trial
    letters = [ord(letter) for letter in method]
    rng = np.random.default_rng([made.draw, number, seed, *letters])
    frames, metrics = [], []
    for split in ("val", "test"):
        examples = splits[split]
        predictions = draw_predictions(made, examples, gain, rng)
        frames.append(fit_rows(made, examples, predictions))
        metrics.append(group_metrics(predictions, examples, made.groups, made.label_names).assign(split=split))
    key = fit_key(made, *trial)
    store.write("fits", key, pd.concat(frames, ignore_index=True).assign(fit_key=key), {})
    return key, pd.concat(metrics, ignore_index=True)


def fit_rows(made: MadeUp, examples: Examples, predictions: Predictions) -> pd.DataFrame:
    """The rows of one split of a fit, but for its key."""
    return pd.DataFrame(
        {
            "split": examples.split,
            "example_id": examples.example_ids,
            "group": np.array(made.groups)[examples.groups],
            "label": examples.labels,
            "margin": predictions.margins,
            "predicted": predictions.predicted,
            "probability": predictions.probabilities,
        }
    )


def write_trial(
    store: Store, made: MadeUp, trial: Trial, fit: Fitted, objective: str, removed: Sequence[str] | np.ndarray
) -> None:
    method, number, seed = trial
    key_of_fit, metrics = fit
    key = f"trial-{made.name}-{method}-{number}-{seed}"
    rows = metrics.assign(
        trial_key=key,
        fit_key=key_of_fit,
        experiment=made.name,
        dataset=made.name.partition("-")[0],
        model="tiny-bert",
        objective=objective,
        num_removed=number,
        seed=seed,
        train_seconds=12.5,
        num_train=made.num_train - number,
        num_steps=57,
        created_at=CREATED_AT,
    )
    if len(removed):
        store.write("removals", key, pd.DataFrame({"trial_key": key, "example_id": removed}), {}, method)
    store.write("trials", key, rows, {}, method)
