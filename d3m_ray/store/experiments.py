"""The record of an experiment: what was asked for under one name, as a JSON document."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import pyarrow as pa

NEEDED_ENTRIES = ("dataset", "model")
NAMES_OF_KINDS = {dict: "an object", list: "a list", str: "a text"}


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
    )


def experiment_to_json(experiment: Experiment) -> bytes:
    """The record as it is stored; the name is that of its file."""
    document = {name: value for name, value in asdict(experiment).items() if name != "name"}
    return json.dumps(document, indent=1, allow_nan=False).encode()


def experiment_from_json(name: str, data: pa.Buffer) -> Experiment:
    """The record of this name. Raises ValueError where it is no JSON, or a field is missing or not of its type."""
    document = json.loads(data.to_pybytes())
    if not isinstance(document, dict):
        raise ValueError("a record is a JSON object")
    optional = {"keys": {}, "created_at": "", "caveats": []}  # a record of an earlier version has none
    for entry, kind in (
        ("configuration", dict),
        ("plan", list),
        ("keys", dict),
        ("created_at", str),
        ("caveats", list),
    ):
        value = document.get(entry)
        if not isinstance(optional.get(entry) if value is None else value, kind):
            raise ValueError(f"a record has the field {entry}, {NAMES_OF_KINDS[kind]}")
    return Experiment(
        name=name,
        configuration=document["configuration"],
        plan=tuple(_planned(trial) for trial in document["plan"]),
        keys=document.get("keys") or {},
        created_at=document.get("created_at"),
        caveats=tuple(document.get("caveats") or ()),
    )


def _planned(trial: Any) -> PlannedTrial:
    try:
        planned = PlannedTrial(*trial)
    except TypeError as error:
        raise ValueError(f"a planned trial is [method, num_removed, seed], received {trial!r}") from error
    is_count = planned.num_removed is None or isinstance(planned.num_removed, int)
    if not (isinstance(planned.method, str) and is_count and isinstance(planned.seed, int)):
        raise ValueError(f"a planned trial is [method, num_removed, seed], received {trial!r}")
    return planned
