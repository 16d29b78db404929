"""The documents of a store beside its tables, as files: experiments, preparations and logs."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.store.experiments import Experiment, experiment_from_json, experiment_to_json, extended
from d3m_ray.store.files import Files
from d3m_ray.store.preparations import Preparation, preparation_from_json, preparation_to_json
from d3m_ray.store.results import checked_name, is_name
from d3m_ray.waiting import Say

EXPERIMENTS, PREPARATIONS, LOGS = "experiments", "preparations", "logs"


def now() -> str:
    """The time as a record has it: UTC, in ISO format."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def experiment_file(name: str) -> str:
    """The path of an experiment's record, below the root of the store."""
    return f"{EXPERIMENTS}/{checked_name(name)}.json"


def experiment_names(files: Files) -> Iterator[str]:
    """The names of the records, in their order; other files are not ours."""
    paths = (path.removeprefix(f"{EXPERIMENTS}/") for path in files.paths(EXPERIMENTS))
    yield from filter(is_name, sorted(path.removesuffix(".json") for path in paths if path.endswith(".json")))


def read_experiment(files: Files, name: str) -> Experiment | None:
    """The experiment of this name, if there is one. Raises DamagedError where its file is damaged."""
    path = experiment_file(name)
    return files.read(path, lambda data: experiment_from_json(name, data)) if files.has(path) else None


def read_experiments(files: Files, say: Say | None) -> dict[str, Experiment]:
    """Every experiment by name. Raises as `read_experiment`; with `say`, damaged files are told and left out."""
    found: dict[str, Experiment] = {}
    for name in experiment_names(files):
        try:
            experiment = read_experiment(files, name)
        except DamagedError as error:
            if say is None:
                raise
            say(str(error))
        else:
            found |= {} if experiment is None else {name: experiment}
    return found


def write_experiment(files: Files, asked: Experiment) -> None:
    """Record an experiment, in addition to what its record has of it. Raises as `read_experiment`."""
    begun = read_experiment(files, asked.name)
    files.put(experiment_file(asked.name), experiment_to_json(asked if begun is None else extended(begun, asked)))


def write_caveats(files: Files, name: str, caveats: Iterable[str]) -> None:
    """Set the caveats of a recorded experiment. Raises StoreError where there is no record, or a damaged one."""
    experiment = read_experiment(files, name)
    if experiment is None:
        raise StoreError(f"{files.root} holds no experiment {name!r}; run the sweep that makes it")
    files.put(experiment_file(name), experiment_to_json(replace(experiment, caveats=tuple(caveats))))


def preparation_file(key: str) -> str:
    """The path of a preparation, below the root of the store."""
    return f"{PREPARATIONS}/{checked_name(key)}.json"


def write_preparation(files: Files, key: str, preparation: Preparation) -> None:
    """Keep what preparing a model came to, under the hash of all that it follows from."""
    files.put(preparation_file(key), preparation_to_json(key, preparation))


def read_preparation(files: Files, key: str) -> Preparation | None:
    """What was kept under this key; None where there is nothing, or it is damaged."""
    path = preparation_file(key)
    with suppress(DamagedError):
        return files.read(path, partial(preparation_from_json, key)) if files.has(path) else None
    return None


def write_log(files: Files, experiment: str, run: str, lines: bytes) -> None:
    """Put the JSON lines of a run of this name, in the place of those that are there."""
    files.put(f"{LOGS}/{experiment}/{run}.jsonl", lines)
