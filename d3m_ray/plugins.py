"""What others add: attribution methods, arms and corpora, each one function that is registered under a name.

A package names its module under the entry point group `d3m_ray`; `load` imports them all, once. A module that is not
installed registers by being imported.
"""

import re
from collections.abc import Callable
from dataclasses import fields, is_dataclass, make_dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d3m_ray.attribution.registry import METHODS, Method
from d3m_ray.data.corpora import CORPORA, Corpus
from d3m_ray.errors import InputError
from d3m_ray.records import Splits
from d3m_ray.selection.arms import ARMS, Arm, Evidence, arms_of_method

if TYPE_CHECKING:
    from d3m_ray.attribution.scorers import Score, Scorers

GROUP = "d3m_ray"
NAME = re.compile(r"[a-z][a-z0-9_]*")

Select = Callable[[Evidence, int, int], np.ndarray]
Load = Callable[[Any, Path | None], Splits]


def method(
    name: str, settings: type | None = None, version: int = 1, reads_queries: bool = True
) -> "Callable[[Score], Score]":
    """Register an attribution method: a function (inputs, settings, pool) -> [N train examples, query sets].

    Column s says how much each train example raises the mean target of the queries `inputs.query_sets[s]`. `settings`
    is a frozen dataclass, whose fields become flags and enter the keys of the scores; `version` enters them too: raise
    it when the same settings give other scores. The method gives the arms NAME, NAME_heuristic, NAME_helpful, NAME_auto
    and so on. Raises InputError where the name is taken or no name.
    """
    _check_name(name, {**METHODS, **ARMS}, "an attribution method")
    defaults = None if settings is None else _defaults(settings, f"the settings of {name}")

    def register(score: "Score") -> "Score":
        def load() -> "Scorers":
            from d3m_ray.attribution.scorers import by_query_sets

            return by_query_sets(name, score)

        reads = () if defaults is None else tuple(field.name for field in fields(defaults))
        added = Method(
            name,
            _first_line(score),
            load,
            settings=None if defaults is None else name,
            defaults=defaults,
            reads=reads,
            reads_queries=reads_queries,
            version=f"{score.__module__} {version}",
        )
        METHODS[name] = added
        ARMS.update(arms_of_method(added))
        return score

    return register


def arm(name: str) -> Callable[[Select], Select]:
    """Register an arm: a function (evidence, num_removed, seed) -> [M] positions of train examples to remove.

    It sees train and what is known of it from val (`Evidence`), never test. Equal inputs give equal positions. Raises
    InputError where the name is taken or no name.
    """
    _check_name(name, ARMS, "an arm")

    def register(select: Select) -> Select:
        def checked(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
            removed = np.unique(np.asarray(select(evidence, num_removed, seed)))
            is_selection = removed.dtype.kind in "iu" and len(removed) == num_removed
            if not is_selection or (len(removed) and not 0 <= removed[0] <= removed[-1] < len(evidence)):
                raise ValueError(
                    f"the arm {name} gives {num_removed} different positions of the {len(evidence)} train examples; "
                    f"received {len(removed)} of type {removed.dtype}"
                )
            return removed.astype(np.int64)

        ARMS[name] = Arm(checked)
        return select

    return register


def corpus(
    name: str, options: type | None = None, num_removed: tuple[int | str, ...] = (0, "5%", "10%", "20%")
) -> Callable[[Load], Load]:
    """Register a corpus: a function (options, folder or None) -> Splits, made by `make_splits` or otherwise.

    `options` is a frozen dataclass, whose fields become flags. `num_removed` is what a run of it removes unless told
    otherwise. Raises InputError where the name is taken or no name.
    """
    _check_name(name, CORPORA, "a corpus")
    own = make_dataclass(name, (), frozen=True) if options is None else options
    _defaults(own, f"the options of {name}")

    def register(load: Load) -> Load:
        CORPORA[name] = Corpus(name, _first_line(load), own, load, num_removed, reads_itself=True)
        return load

    return register


@cache
def load() -> tuple[str, ...]:
    """Import what packages registered under the group `d3m_ray`; a line for each that could not be imported."""
    broken = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()
        except Exception as error:
            broken.append(f"the plug-in {point.name} ({point.value}) is left out: {type(error).__name__}: {error}")
    return tuple(broken)


def _check_name(name: str, taken: Any, kind: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(f"the name of {kind} is lower-case letters, digits and '_', a letter first; received {name!r}")
    if name in taken:
        raise InputError(f"the name of {kind} is its own; {name!r} is taken: choose another")


def _defaults(settings: type, what: str) -> Any:
    """An instance of default values."""
    if not is_dataclass(settings) or not settings.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise InputError(f"{what} are a frozen dataclass, received {settings!r}")
    try:
        return settings()
    except TypeError as error:
        raise InputError(f"{what} have a default for every field: {error}") from error


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
