"""What speaks against reading a finding out of an experiment's results: a sentence each, from the store alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from d3m_ray.analysis.choice import REFERENCE_METHOD
from d3m_ray.analysis.corpus import trial_identities
from d3m_ray.analysis.results import Results, once
from d3m_ray.analysis.statistics import MIN_VALUES
from d3m_ray.metrics.groups import CELL_SEPARATOR
from d3m_ray.wording import counted

ONE_LABEL_SHARE = 0.99  # of val: from here on a model's answers are one label
UNEVEN = 0.1  # of accuracy between base models of one training but for the seed
SMALL_GROUP = 100  # test examples: of fewer, one is more than a point of the group's accuracy
SIGNIFICANCE = 0.05  # as of the headline's claims
ARM = ["method", "num_removed"]


Kind = Literal[
    "one label",
    "chance",
    "missed label",
    "uneven",
    "identical arms",
    "identical pairs",
    "small groups",
    "cell floor",
    "seeds",
    "pairs",
]


@dataclass(frozen=True)
class Caveat:
    """One thing that speaks against a finding."""

    kind: Kind
    sentence: str
    voids: bool = False
    """Whether nothing at all can be concluded from the trials: most base models learnt nothing, or all arms are one."""
    arms: tuple[tuple[str, int], ...] = ()
    """The arms, as (method, num_removed), that it is about; of none, it is about all."""


@once
def find_caveats(results: Results) -> list[Caveat]:
    """What to print beside a summary, nothing where nothing of what is looked for is found.

    Looked for are base models that answer one label, are no better on val than always answering the most frequent one,
    never get a label right, or differ widely; other models that never get a label right; arms that no trial tells
    apart; groups of few test examples; removals that a cell floor changed; and too few seeds for an interval.
    """
    trials, label_names, identities = results.trials, results.label_names, trial_identities(results)
    is_base = trials["fit_key"].isin(list(results.base_fits.values()))
    read_by_attribution = {key: name for name, key in results.record.keys.get("fits", {}).items()}
    names = {key: f"base model, seed {seed}" for seed, key in results.base_fits.items()} | read_by_attribution
    answers = _answers_on_val(results, names)
    of_base_models = [
        *_of_base_models(answers),
        *_of_missed_labels(answers),
        *_of_uneven_models(answers, list(read_by_attribution.values())),
    ]
    if trials.empty:
        return of_base_models
    return [
        *of_base_models,
        *_of_trained_models(trials[~is_base], identities, label_names),
        *_of_arms(trials),
        *_of_small_groups(trials, identities),
        *_of_floors(results),
        *_of_seeds(trials),
        *_of_pairs(trials),
    ]


@dataclass(frozen=True)
class _Answers:
    """What one base model answers on val."""

    model: str
    num_examples: int
    accuracy: float
    top_answer: str
    top_share: float
    """Of the examples that are answered so."""
    top_label: str
    """The most frequent label."""
    top_label_share: float
    p_value: float
    """Of an accuracy this high or higher, were it in truth `top_label_share`: one-sided binomial test."""
    recalls: Mapping[str, float]
    """By label, the share of its examples that are answered so."""


def _answers_on_val(results: Results, names: Mapping[str, str]) -> list[_Answers]:
    """Those of each stored fit, given by its key and called by its name."""
    columns, on_val = ["fit_key", "label", "predicted"], [("split", "==", "val")]
    rows = results.store.read_all("fits", columns, on_val, results.say, keys=dict.fromkeys(names))
    fits = dict(iter(rows.groupby("fit_key")))
    return [_answers(name, fits[key], results.label_names) for key, name in names.items() if key in fits]


def _answers(model: str, rows: pd.DataFrame, label_names: Sequence[str]) -> _Answers:
    labels, predicted = rows["label"].to_numpy(), rows["predicted"].to_numpy()
    counts = pd.Series(labels).value_counts()
    answers = pd.Series(predicted).value_counts()
    correct = predicted == labels

    def name(label: int) -> str:
        return repr(label_names[label]) if label < len(label_names) else f"label {label}"

    majority_share = float(counts.iloc[0] / len(rows))
    return _Answers(
        model=model,
        num_examples=len(rows),
        accuracy=float(correct.mean()),
        top_answer=name(int(answers.index[0])),
        top_share=float(answers.iloc[0] / len(rows)),
        top_label=name(int(counts.index[0])),
        top_label_share=majority_share,
        p_value=float(binomtest(int(correct.sum()), len(rows), majority_share, alternative="greater").pvalue),
        recalls={name(int(label)): float(correct[labels == label].mean()) for label in sorted(counts.index)},
    )


def _of_base_models(models: Sequence[_Answers]) -> list[Caveat]:
    of_one_label = [model for model in models if model.top_share >= ONE_LABEL_SHARE]
    at_chance = [model for model in models if model.p_value >= SIGNIFICANCE and model not in of_one_label]
    voids = 2 * len([*of_one_label, *at_chance]) >= len(models)
    caveats = []
    if of_one_label:
        model = of_one_label[0]
        sentence = (
            f"{_how_many(of_one_label, models)} answered {model.top_answer} for {model.top_share:.1%} of val: a "
            "group's accuracy is little but the share of that label in it, whatever is removed. Train longer, at "
            "another learning rate, or with another model."
        )
        caveats.append(Caveat("one label", sentence, voids))
    if at_chance:
        model = max(at_chance, key=lambda model: model.p_value)
        recalls = ", ".join(f"{label} {recall:.1%}" for label, recall in model.recalls.items())
        sentence = (
            f"{_how_many(at_chance, models)} did no better on val, by accuracy, than always answering "
            f"{model.top_label}: accuracy {model.accuracy:.1%} of {counted(model.num_examples, 'example')} "
            f"against {model.top_label_share:.1%} (one-sided binomial test, p = {model.p_value:.2g}; "
            f"recall: {recalls})."
        )
        caveats.append(Caveat("chance", sentence, voids))
    return caveats


def _of_missed_labels(models: Sequence[_Answers]) -> list[Caveat]:
    """One for each label of which a model that answers more than one gets no example right."""
    labels = dict.fromkeys(label for model in models for label in model.recalls)
    missed = {
        label: [m for m in models if m.recalls.get(label) == 0 and m.top_share < ONE_LABEL_SHARE] for label in labels
    }
    return [
        Caveat("missed label", f"{_how_many(some, models)} got no example of {label} right on val.")
        for label, some in missed.items()
        if some
    ]


def _of_uneven_models(models: Sequence[_Answers], read_by_attribution: Sequence[str]) -> list[Caveat]:
    """One where base models of which nothing else was said differ much by their seed alone."""
    sound = [
        m for m in models if m.top_share < ONE_LABEL_SHARE and m.p_value < SIGNIFICANCE and min(m.recalls.values())
    ]
    accuracies = {model.model: model.accuracy for model in sound}
    if len(accuracies) < 2 or max(accuracies.values()) - min(accuracies.values()) <= UNEVEN:
        return []
    worst, best = min(accuracies, key=accuracies.__getitem__), max(accuracies, key=accuracies.__getitem__)
    read = f"; attribution reads {', '.join(read_by_attribution)}" if read_by_attribution else ""
    sentence = (
        f"Base models differ by their seed alone: val accuracy from {accuracies[worst]:.1%} ({worst}) to "
        f"{accuracies[best]:.1%} ({best}){read}. Train longer or at another rate, or average over --num-checkpoints."
    )
    return [Caveat("uneven", sentence)]


def _of_trained_models(trials: pd.DataFrame, identities: Sequence[str], label_names: Sequence[str]) -> list[Caveat]:
    """One for each label of which models that are no base models get no test example right."""
    caveats = []
    for label in label_names:
        of_label = trials[trials["group"].isin([f"{identity}{CELL_SEPARATOR}{label}" for identity in identities])]
        best = of_label.groupby("fit_key")["accuracy"].max()
        num_missed = int((best == 0).sum())
        if num_missed:
            arms = _arms(of_label[of_label["fit_key"].isin(best.index[best == 0])])
            sentence = (
                f"{num_missed} of {counted(len(best), 'model')} trained for arms got no test example of {label!r} "
                f"right: {_named(arms)}."
            )
            caveats.append(Caveat("missed label", sentence, arms=arms))
    return caveats


def _of_small_groups(trials: pd.DataFrame, identities: Sequence[str]) -> list[Caveat]:
    sizes = trials.drop_duplicates("group").set_index("group")["num_examples"]
    sizes = sizes[sizes.index.isin(identities)]
    if sizes.empty or sizes.min() >= SMALL_GROUP:
        return []
    sentence = (
        f"Test groups are small, {sizes.idxmin()} has {counted(sizes.min(), 'example')}: one of them is "
        f"{100 / sizes.min():.1f} points of its accuracy. Intervals over seeds alone know nothing of that."
    )
    return [Caveat("small groups", sentence)]


def _of_floors(results: Results) -> list[Caveat]:
    """One where removals are not those of lowest alignment, since cells were to keep a floor."""
    aligned = tuple(results.record.keys.get("alignments", {}))
    removing = results.fits[(results.fits["num_removed"] > 0) & results.fits["method"].str.startswith(aligned)]
    changed = {}
    for row in removing.drop_duplicates(ARM).itertuples(index=False):  # the same under every seed
        configuration = results.made_with("trials", str(row.trial_key), str(row.method))
        spared = configuration.get("selection", {})
        if spared.get("num_spared"):
            changed[str(row.method), int(str(row.num_removed))] = spared
    if not changed:
        return []
    arms = "; ".join(f"{_named([arm])} ({spared['num_spared']} kept)" for arm, spared in changed.items())
    floor = next(iter(changed.values()))["cell_floor"]
    sentence = (
        f"Each cell keeps {floor} of its train examples at least (--cell-floor), so these do not remove the lowest "
        f"alone: {arms}."
    )
    return [Caveat("cell floor", sentence, arms=tuple(changed))]


def _how_many(some: Sequence[_Answers], models: Sequence[_Answers]) -> str:
    return "The base model" if len(models) == 1 else f"{len(some)} of {len(models)} base models"


def _arms(trials: pd.DataFrame) -> tuple[tuple[str, int], ...]:
    return tuple(trials[ARM].drop_duplicates().itertuples(index=False, name=None))


def _named(arms: Iterable[tuple[str, int]]) -> str:
    return "; ".join(f"{method}, {num_removed} removed" for method, num_removed in arms)


def _of_arms(trials: pd.DataFrame) -> list[Caveat]:
    """About arms whose models differ and whose accuracies do not, in any group, cell or seed."""
    accuracies = trials.pivot(index=["seed", "group"], columns=ARM, values="accuracy")
    fit_keys = trials.drop_duplicates([*ARM, "seed"]).pivot(index="seed", columns=ARM, values="fit_key")
    if fit_keys.nunique(axis=1).max() > 1 and accuracies.nunique(axis=1).max() == 1:
        sentence = (
            "All arms, whatever they removed, have the same accuracy in every group under every seed: what was "
            "removed, or how it was trained, changed nothing that this table can show."
        )
        return [Caveat("identical arms", sentence, voids=True)]
    values, keys = accuracies.to_numpy(), fit_keys.to_numpy()
    arms = accuracies.columns.to_frame().itertuples(index=False, name=None)
    columns = {arm: column for column, arm in enumerate(arms)}
    same = []
    for (method, num_removed), column in columns.items():
        reference = columns.get((REFERENCE_METHOD, num_removed))
        if method == REFERENCE_METHOD or reference is None:
            continue
        models, pairs = (_rows_of_both(of_arms[:, [column, reference]]) for of_arms in (keys, values))
        if (models[:, 0] != models[:, 1]).any() and (pairs[:, 0] == pairs[:, 1]).all():
            same.append((method, num_removed))
    if not same:
        return []
    sentence = f"No group under any seed tells these from random removal of as many: {_named(same)}."
    return [Caveat("identical pairs", sentence, arms=tuple(same))]


def _rows_of_both(columns: np.ndarray) -> np.ndarray:
    return columns[~pd.isna(columns).any(axis=1)]


def _of_seeds(trials: pd.DataFrame) -> list[Caveat]:
    num_seeds = trials.groupby(ARM)["seed"].nunique()
    fewest, most = num_seeds.min(), num_seeds[num_seeds < MIN_VALUES].max()
    if fewest >= MIN_VALUES:
        return []
    count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    which = "" if (num_seeds < MIN_VALUES).all() else " in some arms"
    sentence = (
        f"Fewer than {MIN_VALUES} seeds ({count}){which}: their values are shown, and no interval. A difference that a "
        f"few seeds show may be the seeds' own; --seeds {' '.join(map(str, range(MIN_VALUES)))} (of an LDS: "
        "--removal-seeds, as many) gives intervals."
    )
    return [Caveat("seeds", sentence)]


def _of_pairs(trials: pd.DataFrame) -> list[Caveat]:
    """One where arms with seeds enough for an interval share too few of them with random removal."""
    arms = trials.groupby(ARM)["seed"].agg(set).reset_index().itertuples(index=False, name=None)
    seeds = {(method, num_removed): of_arm for method, num_removed, of_arm in arms}
    few = []
    for (method, num_removed), of_arm in seeds.items():
        shared = of_arm & seeds.get((REFERENCE_METHOD, num_removed), set())
        if method != REFERENCE_METHOD and len(of_arm) >= MIN_VALUES > len(shared) > 0:
            few.append(f"{method}, {num_removed} removed ({len(shared)} of {len(of_arm)})")
    if not few:
        return []
    sentence = (
        f"These share fewer than {MIN_VALUES} of their seeds with random removal of as many: {'; '.join(few)}. The "
        "difference is over those alone, and is not that of the two means; the same --seeds for both solve it."
    )
    return [Caveat("pairs", sentence)]
