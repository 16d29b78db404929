"""The record of an experiment: what was asked for under one name, as a JSON document."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

from d3m_ray.store.provenance import Provenance
from d3m_ray.store.results import is_name

NEEDED_ENTRIES = ("dataset", "model")
PLUGIN_ENTRIES = ("plugins", "plugins_in_use")  # settings by the name of a method or recipe, where there are any
MAX_DEPTH = 50  # of a record, which has five levels
MAX_NUMBER = 2**63 - 1  # that a column holds
FIELDS: Mapping[str, tuple[type, Any]] = {
    "configuration": (dict, None),
    "plan": (list, None),
    "keys": (dict, {}),
    "created_at": (str, ""),
    "caveats": (list, []),
    "provenance": (dict, {}),
}
"""The kind of each, and what stands for it in a record of an earlier version; None where every version has it."""
NAMES_OF_KINDS: Mapping[type, str] = {dict: "an object", list: "a list", str: "a text"}


class PlannedTrial(NamedTuple):
    """A trial that an experiment asks for."""

    method: str
    num_removed: int | None
    """None where the selection rule decides."""
    seed: int


@dataclass(frozen=True)
class Experiment:
    """What was asked for under one name: the configuration that its trials share, and every trial planned so far."""

    name: str
    configuration: Mapping[str, Any]
    """JSON values; `dataset` and `model` at least."""
    plan: Sequence[PlannedTrial]
    keys: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By table, the keys of the results that trials share: {"alignments": {"trak": KEY}, "fits": {"seed 0": KEY}}."""
    created_at: str | None = None
    """When it was first asked for, in ISO format; None in a record of an earlier version."""
    caveats: Sequence[str] = ()
    """What its last summary said against itself, a sentence each."""
    provenance: Provenance = field(default_factory=dict)
    """Which software and machine it was begun with, or gone on with last; empty in a record of an earlier version."""

    def __post_init__(self) -> None:
        missing = [entry for entry in NEEDED_ENTRIES if entry not in self.configuration]
        if missing:
            raise ValueError(
                f"an experiment's configuration has the entries {' and '.join(NEEDED_ENTRIES)}; missing {missing}"
            )


def extended(begun: Experiment, asked: Experiment) -> Experiment:
    """The record of an experiment that was begun, when more of it is asked for under the same name.

    Caveats go: they were about a smaller plan.
    """
    tables = sorted({*begun.keys, *asked.keys})
    return Experiment(
        name=begun.name,
        configuration=asked.configuration,
        plan=tuple(dict.fromkeys([*begun.plan, *asked.plan])),
        keys={table: {**begun.keys.get(table, {}), **asked.keys.get(table, {})} for table in tables},
        created_at=begun.created_at,
        provenance=asked.provenance,
    )


def experiment_to_json(experiment: Experiment) -> bytes:
    """The record as it is stored; the name is that of its file."""
    document = {name: value for name, value in asdict(experiment).items() if name != "name"}
    return json.dumps(document, indent=1, allow_nan=False).encode()


def experiment_from_json(name: str, data: pa.Buffer) -> Experiment:
    """The record of this name. Raises ValueError where it is no JSON, or a field is missing or not of its type."""
    try:
        document = json.loads(data.to_pybytes())
    except RecursionError as error:
        raise ValueError("it is nested too deep for a record") from error
    _check_content(document)
    _check_kinds(document)
    keys, caveats = document.get("keys") or {}, document.get("caveats") or ()
    provenance = document.get("provenance") or {}
    _check_configuration(document["configuration"])
    if not all(isinstance(of_table, dict) and _are_keys(of_table.values()) for of_table in keys.values()):
        raise ValueError(f"the keys of a record are names of results by name by table, received {keys!r}")
    if not _are_texts(caveats):
        raise ValueError(f"the caveats of a record are texts, received {caveats!r}")
    if not all(_is_provenance(value) for value in provenance.values()):
        raise ValueError(f"the provenance of a record is texts, counts and versions by name, received {provenance!r}")
    return Experiment(
        name=name,
        configuration=document["configuration"],
        plan=tuple(_planned(trial) for trial in document["plan"]),
        keys=keys,
        created_at=document.get("created_at"),
        caveats=tuple(caveats),
        provenance=provenance,
    )


def _check_kinds(document: Any) -> None:
    """Raises ValueError where a field of a record is missing or not of its type."""
    if not isinstance(document, dict):
        raise ValueError("a record is a JSON object")
    for entry, (kind, of_earlier_versions) in FIELDS.items():
        value = document.get(entry)
        if not isinstance(of_earlier_versions if value is None else value, kind):
            raise ValueError(f"a record has the field {entry}, {NAMES_OF_KINDS[kind]}")


def _check_configuration(configuration: Mapping[str, Any]) -> None:
    """Raises ValueError where what readers take for texts and for the name of a result is none."""
    shared = [configuration.get(entry, "") for entry in NEEDED_ENTRIES]
    if not _are_texts(shared):
        raise ValueError(f"{' and '.join(NEEDED_ENTRIES)} of a record are texts, received {shared!r}")
    data_hash = configuration.get("data_hash", "none")
    if not _are_keys([data_hash]):
        raise ValueError(f"the data_hash of a record is the name of a result, received {data_hash!r}")
    for entry in PLUGIN_ENTRIES:
        settings = configuration.get(entry, {})
        if not (isinstance(settings, dict) and all(isinstance(own, dict) for own in settings.values())):
            raise ValueError(f"the {entry} of a record are settings by name, received {settings!r}")


def _planned(trial: Any) -> PlannedTrial:
    try:
        planned = PlannedTrial(*trial)
    except TypeError as error:
        raise ValueError(f"a planned trial is [method, num_removed, seed], received {trial!r}") from error
    if not (isinstance(planned.method, str) and _is_count(planned.num_removed, True) and _is_count(planned.seed)):
        raise ValueError(f"a planned trial is [method, num_removed, seed], received {trial!r}")
    return planned


def _is_count(value: Any, optional: bool = False) -> bool:
    return (optional and value is None) or (type(value) is int and abs(value) <= MAX_NUMBER)


def _is_provenance(value: Any) -> bool:
    return isinstance(value, str) or _is_count(value) or (isinstance(value, dict) and _are_texts(value.values()))


def _are_keys(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) and is_name(value) for value in values)


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _check_content(document: Any) -> None:
    """Raises ValueError where a document is nested beyond any record, or holds what is no text."""
    level = [document]
    for _ in range(MAX_DEPTH):
        nested = [value for value in level if isinstance(value, dict | list)]
        level = [child for value in nested for child in (value.values() if isinstance(value, dict) else value)]
    if level:
        raise ValueError(f"a record has at most {MAX_DEPTH} levels")
    # Neither NaN is JSON, nor has half a surrogate pair an encoding: a ValueError.
    json.dumps(document, ensure_ascii=False, allow_nan=False).encode()
