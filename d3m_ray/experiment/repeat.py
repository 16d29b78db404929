"""An experiment from its record in a store: what was asked for, as a configuration that can be run again."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from d3m_ray.data.corpora import CORPORA
from d3m_ray.entry_points import load_plugins
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import SHARED_SETTINGS, ExperimentConfig, plugin_defaults, plugins_of
from d3m_ray.records import FIRST_DRAW
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.experiments import Experiment


def config_of(experiment: Experiment, store: str) -> ExperimentConfig:
    """What was asked for under this name, so far: every arm, number and seed of its plan. Where it runs is not kept.

    Raises InputError where the record is of an earlier version, which did not name the corpus, of a study of methods,
    whose subsets it does not describe, of a corpus or method that is not registered here, or damaged.
    """
    try:
        return _config_of(experiment, store)
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"the record of {experiment.name} holds every setting of its experiment; this one lacks one, or has one of "
            f"another kind ({type(error).__name__}: {error}): run the command that it came from again"
        ) from error


def _config_of(experiment: Experiment, store: str) -> ExperimentConfig:
    recorded = experiment.configuration
    command = recorded.get("command")
    if command is None:
        raise InputError(
            f"the record of {experiment.name} is of an earlier version, without its corpus: run its sweep again"
        )
    if any(trial.seed >= FIRST_DRAW for trial in experiment.plan):
        raise InputError(
            f"{experiment.name} is an LDS or a leaderboard, of which the record does not keep the subsets: run the "
            "command that it came from again"
        )
    load_plugins()
    _check_registered(f"the corpus of {experiment.name}", command["corpus"], CORPORA)
    data = recorded["corpus"]["data"]
    return ExperimentConfig(
        corpus=_made(CORPORA[command["corpus"]].options, recorded["corpus"]),
        data=None if data is None else Path(data),
        model=command["model"],
        store=store,
        store_texts=command["store_texts"],
        methods=_methods(experiment),
        num_removed=tuple(sorted({t.num_removed for t in experiment.plan if t.num_removed is not None})) or (0,),
        seeds=tuple(sorted({trial.seed for trial in experiment.plan})),
        num_checkpoints=recorded["num_checkpoints"],
        protocol=recorded["protocol"],
        experiment=experiment.name,
        plugins=_plugins(experiment),
        **{name: _made(kind, recorded[name]) for name, kind in _SHARED.items()},
    )


_SHARED = {field.name: type(field.default) for field in fields(ExperimentConfig) if field.name in SHARED_SETTINGS}
"""The classes of the settings that all trials share."""


def _methods(experiment: Experiment) -> tuple[str, ...]:
    """The arms of its plan."""
    methods = tuple(dict.fromkeys(trial.method for trial in experiment.plan))
    for method in methods:
        _check_registered(f"an arm of {experiment.name}", method, ARMS)
    return methods


def _plugins(experiment: Experiment) -> dict[str, Any]:
    """The settings of plug-ins' methods and recipes, which may have been their defaults then and not be now."""
    recorded = plugins_of(experiment.configuration)
    known = plugin_defaults()
    for name in recorded:
        _check_registered(f"a method or recipe of {experiment.name} with settings", name, known)
    return {name: _made(type(known[name]), values) for name, values in recorded.items()}


def _check_registered(what: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise InputError(
            f"{what} is {name!r}, which is not registered here: install, or import, the plug-in that brings it"
        )


def _made(kind: type, values: Mapping[str, Any]) -> Any:
    """An instance of a settings class from JSON values, in which tuples are lists; what it does not know is left out.

    That is a setting of another version: `check_name_is_free` finds it. What is a list by default stays one.
    """
    by_default = {field.name: getattr(kind(), field.name) for field in fields(kind)}
    return kind(
        **{n: v if isinstance(by_default[n], list) else _tupled(v) for n, v in values.items() if n in by_default}
    )


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value
