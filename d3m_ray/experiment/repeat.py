"""An experiment from its record in a store: what was asked for, as a configuration that can be run again."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.corpora import CORPORA
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import SHARED_SETTINGS, ExperimentConfig
from d3m_ray.store.experiments import Experiment


def config_of(experiment: Experiment, store: str) -> ExperimentConfig:
    """What was asked for under this name, so far: every arm, number and seed of its plan. Where it runs is not kept.

    Raises InputError where the record is of an earlier version, which did not name the corpus, or of a corpus or method
    that is not registered here.
    """
    recorded = experiment.configuration
    command = recorded.get("command")
    if command is None:
        raise InputError(
            f"the record of {experiment.name} is of an earlier version, without its corpus: run its sweep again"
        )
    if command["corpus"] not in CORPORA:
        raise InputError(f"the corpus of {experiment.name} is {command['corpus']!r}, which is not registered here")
    corpus = CORPORA[command["corpus"]]
    options = {name: value for name, value in recorded["corpus"].items() if name != "data"}
    plain = {field.name: field.default for field in fields(ExperimentConfig)}
    own = {name: type(plain[name]) for name in SHARED_SETTINGS}
    data = recorded["corpus"]["data"]
    numbers = sorted({trial.num_removed for trial in experiment.plan if trial.num_removed is not None})
    return ExperimentConfig(
        corpus=_made(corpus.options, options),
        data=None if data is None else Path(data),
        model=command["model"],
        store=store,
        methods=tuple(dict.fromkeys(trial.method for trial in experiment.plan)),
        num_removed=tuple(numbers) or (0,),
        seeds=tuple(sorted({trial.seed for trial in experiment.plan})),
        num_checkpoints=recorded["num_checkpoints"],
        protocol=recorded["protocol"],
        experiment=experiment.name,
        plugins={name: _made(type(METHODS[name].defaults), of) for name, of in recorded.get("plugins", {}).items()},
        **{name: _made(kind, recorded[name]) for name, kind in own.items()},
    )


def _made(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance of a settings class from JSON values, in which tuples are lists."""
    known = {field.name for field in fields(kind)}
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in known})
