"""What an experiment asks and under which conditions, in words and as named facts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from d3m_ray.analysis.choice import arms_of
from d3m_ray.analysis.results import TRIAL, Results, is_draw
from d3m_ray.records import SPLIT_NAMES

TOLD_ELSEWHERE = ("dataset", "model", "data_hash", "model_hash", "label_names", "num_dropped", "notes", "warnings")
REFERENCE_METHOD = "random"
TARGETS = {
    "margin": "margin: scores are effects on margins",
    "loss": "loss: scores are effects on minus the loss",
    "probability": "probability: scores are effects on the probability of the true label, a soft accuracy",
    "worst_loss": "worst_loss: scores are effects on minus the loss, weighed as the largest of the groups' losses is",
}
THESIS = (
    "This experiment follows the protocol `thesis`: what is removed was chosen ON TEST, the split that judges it. Its "
    "differences say nothing of new data."
)


@dataclass(frozen=True)
class Fact:
    """One named value."""

    name: str
    value: str


@dataclass(frozen=True)
class Facts:
    """Facts of one kind, under a heading."""

    title: str
    facts: Sequence[Fact]


def question(results: Results) -> str:
    """What the experiment asks, in one paragraph."""
    dataset, model = results.configuration["dataset"], results.configuration["model"]
    if is_lds(results):
        return (
            f"Which attribution method's scores predict what retraining does? {model} was trained again on random "
            f"subsets of the train examples of {dataset}; each method is judged by how well its scores order what "
            "comes of those models: the linear datamodeling score (LDS), a Spearman correlation."
        )
    methods = _methods(results)
    named = ", ".join(method for method in methods if method != REFERENCE_METHOD) or "no arm yet"
    yardstick = "random removal of as many, and with " if REFERENCE_METHOD in methods else ""
    return (
        f"Does removing train examples of {dataset}, or training otherwise, raise the accuracy of the group that "
        f"{model} serves worst? Each arm ({named}) trains the model again, once per seed; it is compared, seed by "
        f"seed, with {yardstick}the model trained on everything. What is removed is chosen on "
        f"{'train and TEST' if _is_thesis(results) else 'train and val'}; all results on this page are of test."
    )


def warnings(results: Results) -> list[str]:
    """What the record says against the experiment: its protocol, and what its corpus or model lacks."""
    return [*([THESIS] if _is_thesis(results) else []), *_texts(results.configuration.get("warnings"))]


def is_lds(results: Results) -> bool:
    """Whether the experiment is one of sweeps/lds.py."""
    return len(results.lds) > 0


def setting(results: Results) -> list[Facts]:
    """The corpus, the model, the trials, the hyper-parameters, and where the results come from; none that is empty."""
    configuration = results.configuration
    settings = {name: value for name, value in configuration.items() if name not in TOLD_ELSEWHERE}
    nested = {name: value for name, value in settings.items() if isinstance(value, Mapping)}
    alone = {name: value for name, value in settings.items() if name not in nested}
    found = [
        Facts("Corpus", _corpus_facts(results)),
        Facts("Model and trials", _trial_facts(results)),
        *(Facts(f"Settings: {name}", list(_flat_facts(values))) for name, values in nested.items()),
        Facts("Settings: other", list(_flat_facts(alone))),
        Facts("Where the results come from", _origin_facts(results)),
        Facts("Versions", _version_facts(results)),
    ]
    return [facts for facts in found if facts.facts]


def _corpus_facts(results: Results) -> list[Fact]:
    configuration, examples = results.configuration, results.examples
    facts = [Fact("corpus", str(configuration["dataset"]))]
    if len(examples):
        counts = examples["split"].value_counts()
        facts.append(Fact("examples", ", ".join(f"{counts[name]:,} {name}" for name in SPLIT_NAMES if name in counts)))
        facts.append(Fact("groups", f"{examples['group'].nunique():,}"))
    if results.label_names:
        positive = f"; {results.label_names[1]} is the positive one" if len(results.label_names) == 2 else ""
        facts.append(Fact("labels", written(results.label_names) + positive))
    dropped = configuration.get("num_dropped")
    reasons = {k: v for k, v in dropped.items() if v} if isinstance(dropped, Mapping) else {}
    facts.append(Fact("left out", "; ".join(f"{reason}: {written(n)}" for reason, n in reasons.items()) or "nothing"))
    facts += [Fact("note", note) for note in _texts(configuration.get("notes"))]
    return facts + _hash_fact("content hash", configuration.get("data_hash"))


def _trial_facts(results: Results) -> list[Fact]:
    facts = [Fact("model", str(results.configuration["model"]))]
    facts += _hash_fact("content hash", results.configuration.get("model_hash"))
    methods = _methods(results)
    planned = pd.DataFrame(results.record.plan, columns=TRIAL)
    asked = planned.loc[~is_draw(planned), "seed"].tolist()
    seeds = sorted({*asked, *results.arm_fits["seed"].tolist()})
    numbers = sorted(set(arms_of(results.arm_fits)["num_removed"].tolist()) - {0})
    facts += [Fact("methods", ", ".join(methods))] if methods else []
    facts.append(Fact("target of attribution", TARGETS.get(results.target, results.target)))
    facts += [Fact("seeds", _counted(seeds))] if seeds else []
    return facts + ([Fact("train examples removed", _counted(numbers))] if numbers else [])


def _origin_facts(results: Results) -> list[Fact]:
    facts = [Fact("store", str(results.store)), Fact("experiment", results.name)]
    if results.record.created_at is not None:
        facts.append(Fact("begun", _moment(results.record.created_at)))
    if len(results.fits):
        facts.append(Fact("last trial", _moment(results.fits["created_at"].max().isoformat())))
    alone = {name: value for name, value in _provenance(results).items() if not isinstance(value, Mapping)}
    return [*facts, *_flat_facts(alone)]


def _version_facts(results: Results) -> list[Fact]:
    nested = [value for value in _provenance(results).values() if isinstance(value, Mapping)]
    return [fact for values in nested for fact in _flat_facts(values)]


def _provenance(results: Results) -> Mapping[str, Any]:
    """What the record says of software and machine, empty in one of an earlier version."""
    return getattr(results.record, "provenance", {})


def _methods(results: Results) -> list[str]:
    """Methods planned or stored, in the order in which they were asked for."""
    return list(dict.fromkeys([*(trial.method for trial in results.record.plan), *results.fits["method"]]))


def _is_thesis(results: Results) -> bool:
    return results.configuration.get("protocol") == "thesis"


def _flat_facts(values: Mapping[str, Any], above: str = "") -> Iterator[Fact]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat_facts(value, f"{above}{name}.")
        else:
            yield Fact(f"{above}{name}", written(value))


def _hash_fact(name: str, value: Any) -> list[Fact]:
    return [] if value is None else [Fact(name, str(value))]


def _texts(values: Any) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list | tuple) else []


def _moment(time: str) -> str:
    """A time in ISO format to the minute, in UTC; what is no such time stays as it is."""
    try:
        return f"{datetime.fromisoformat(time).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return time


def _counted(numbers: Sequence[int]) -> str:
    """How many, and which: a run of them as its ends."""
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{len(numbers)}: {numbers[0]} to {numbers[-1]}"
    return f"{len(numbers)}: {', '.join(f'{number:,}' for number in numbers)}"


def written(value: Any) -> str:
    """A value of a record, as a person writes it."""
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(written, value)) or "none"
    return str(value) if value != "" else "empty"
