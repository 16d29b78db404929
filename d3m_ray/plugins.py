"""What others add: attribution methods, arms, recipes and corpora, each one function registered under a name.

A package names its module under the entry point group `d3m_ray`; a module that is not installed registers by being
imported before the name is used.
"""

import inspect
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import fields, is_dataclass, make_dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d3m_ray.attribution.registry import METHODS, Method, flag_prefix
from d3m_ray.data.checks import DataError, check_splits
from d3m_ray.data.corpora import CORPORA, Corpus
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.config import plugin_defaults
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.keys import content_hash
from d3m_ray.records import Splits
from d3m_ray.rules import check_known, check_storable, flags_of
from d3m_ray.selection.arms import ARM_SUFFIXES, ARMS, Arm, Evidence, arms_of_method, training_arm
from d3m_ray.training.registry import ERM, RECIPES, Recipe

if TYPE_CHECKING:
    from d3m_ray.attribution.scorers import Score, Scorers
    from d3m_ray.training.fine_tuning import Fit
    from d3m_ray.training.recipes import FitInputs, Train

NAME = re.compile(r"[a-z][a-z0-9_]*")

Select = Callable[[Evidence, int, int], np.ndarray]
Load = Callable[[Any, Path | None], Splits]


def method(
    name: str, settings: type | None = None, version: int = 1, reads_queries: bool = True
) -> "Callable[[Score], Score]":
    """Register an attribution method: a function (inputs, settings, pool) -> [N train examples, query sets].

    Column s says how much each train example raises the mean target of the queries `inputs.query_sets[s]`. `settings`
    is a frozen dataclass; its fields become the flags `--NAME-FIELD` and enter the keys of the scores, and so do the
    module's name (of a script or notebook, its text) and `version`: raise it when the same settings give other scores.
    `reads_queries=False` says that no query changes them. The method gives the arms NAME, NAME_heuristic, NAME_helpful,
    NAME_best, and where it reads queries NAME_auto and its like. Raises InputError where a name or a flag is taken, or
    breaks a rule.
    """
    _check_name(name, METHODS, "an attribution method")
    defaults = None if settings is None else _defaults(settings, f"the settings of {name}")
    _check_flags(settings, f"the setting of {name}", CORPORA.values(), flag_prefix(name))

    def register(score: "Score") -> "Score":
        def load() -> "Scorers":
            from d3m_ray.attribution.scorers import by_query_sets

            return by_query_sets(name, score)

        added = Method(
            name,
            _first_line(score),
            load,
            settings=None if defaults is None else name,
            defaults=defaults,
            reads=() if defaults is None else tuple(field.name for field in fields(defaults)),
            reads_queries=reads_queries,
            version=f"{_origin(score)} {version}",
        )
        arms = arms_of_method(added)
        for arm_name in arms:
            _check_free(arm_name, ARMS, "an arm")
        METHODS[name] = added
        ARMS.update(arms)
        return score

    return register


def arm(
    name: str, alignment: str | None = None, reads_cell_losses: bool = False, recipe: str = ERM
) -> Callable[[Select], Select]:
    """Register an arm: a function (evidence, num_removed, seed) -> [M] positions of train examples to remove.

    It sees train and what is known of it from val (`Evidence`), never test: of the alignments the one that it names,
    `trak` or `trak_auto` for instance, and the cells' losses where `reads_cell_losses`; it waits for both. Equal
    evidence gives equal positions. One that names an alignment leaves each cell its floor (`Evidence.may_go`), and goes
    in rounds, under seed 0, where --rounds asks for them. What is left is trained on by `recipe`; removing 0 is the
    base model, which is trained plainly, whatever the recipe. Raises InputError where the name is taken or breaks a
    rule, or the recipe is not registered.
    """
    _check_name(name, ARMS, "an arm")
    if alignment is not None and alignment not in {known.alignment for known in ARMS.values()}:
        raise InputError(f"the arm {name} reads the alignment of an attribution method, received {alignment!r}")

    check_known(f"the recipe of the arm {name}", recipe, RECIPES)

    def register(select: Select) -> Select:
        def checked(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
            # What else is there depends on what the store happens to hold.
            seen = replace(
                evidence,
                alignments={} if alignment is None else {alignment: evidence.alignments[alignment]},
                cell_losses=evidence.cell_losses if reads_cell_losses else None,
                over_rounds={},
            )
            try:
                selected = np.asarray(select(seen, num_removed, seed))
            except Exception as error:
                raise RunError(f"the arm {name} failed: {type(error).__name__}: {error}") from error
            _check_selection(name, selected, evidence, num_removed)
            if alignment is not None:
                _check_floors(name, selected, evidence)
            return np.sort(selected).astype(np.int64)

        ARMS[name] = Arm(checked, alignment=alignment, reads_cell_losses=reads_cell_losses, recipe=recipe)
        return select

    return register


def recipe(name: str, settings: type | None = None, version: int = 1) -> "Callable[[Train], Train]":
    """Register a recipe, a way to train: a function of `FitInputs` that leaves the fitted weights in `inputs.model`.

    It returns the `Fit` of `inputs.fine_tune(...)`, which it may call with an `Objective`, with other fields of its
    inputs, or more than once. It draws by `inputs.seed` alone, and reads nothing of the train examples that are not in
    `inputs.kept`. `settings` is a frozen dataclass; its fields become the flags `--NAME-FIELD`, reach the function as
    `inputs.settings`, and enter the keys of the fits, with `version` and the module's name (of a script or notebook,
    its text). It gives the arm NAME, which removes nothing; other arms name it. Raises InputError where a name or a
    flag is taken, or breaks a rule.
    """
    _check_name(name, {**RECIPES, **ARMS}, "a recipe")
    defaults = None if settings is None else _defaults(settings, f"the settings of {name}")
    _check_flags(settings, f"the setting of {name}", CORPORA.values(), flag_prefix(name))

    def register(train: "Train") -> "Train":
        RECIPES[name] = Recipe(
            _first_line(train),
            partial(_checked_recipe, name, train),
            version=f"{_origin(train)} {version}",
            settings=defaults,
            of_plugin=True,
        )
        ARMS[name] = training_arm(name)
        return train

    return register


def _checked_recipe(name: str, train: "Train") -> "Train":
    """The function, held to give what training says of itself; called in the workers, too, that fits run in."""
    from d3m_ray.training.fine_tuning import Fit

    def checked(inputs: "FitInputs") -> "Fit":
        unread: Any = _Unread(name)
        fit = train(replace(inputs, robust=unread))
        if not isinstance(fit, Fit):
            raise RunError(f"the recipe {name} gives the Fit of inputs.fine_tune(), received {type(fit).__name__}")
        inputs.model.eval()  # else the answers of a recipe that trains by itself would depend on dropout
        return fit

    return checked


class _Unread:
    """Stands for `FitInputs.robust` in a recipe of a plug-in, of whose keys those settings are no part."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, field: str) -> Any:
        if field.startswith("__"):  # what Python itself looks for, to copy or to send it
            raise AttributeError(field)
        raise RunError(
            f"the recipe {self.name} reads inputs.settings, which enter the keys of its fits; it asked for {field}, a "
            "setting of this package's own recipes: make it a field of its settings"
        )


def corpus(
    name: str, options: type | None = None, num_removed: tuple[int | str, ...] = (0, "5%", "10%", "20%")
) -> Callable[[Load], Load]:
    """Register a corpus: a function (options, --data or None) -> Splits, which are held to the rules of every corpus.

    `options` is a frozen dataclass, whose fields become flags; without it, `ExperimentConfig(corpus=NAME)` is the way
    to it from Python. `num_removed` is what a run of it removes unless told otherwise. The splits take the corpus's
    name. Raises InputError where a name or a flag is taken, or breaks a rule.
    """
    _check_name(name, CORPORA, "a corpus")
    own = make_dataclass(name, (), frozen=True) if options is None else options
    _defaults(own, f"the options of {name}")
    if any(known.options is own for known in CORPORA.values()):
        raise InputError(f"the options of {name} are a class of its own, received {own!r}, another corpus's")
    _check_flags(own, f"the option of {name}", ())

    def register(load: Load) -> Load:
        def checked(chosen: Any, source: Path | None) -> Splits:
            if source is not None and not source.exists():
                raise DataError(f"--data is a folder or a file, received {str(source)!r}, which is none")
            try:
                splits = load(chosen, source)
            except InputError:
                raise
            except Exception as error:
                raise DataError(f"the corpus {name} cannot be read: {type(error).__name__}: {error}") from error
            if not isinstance(splits, Splits):
                raise DataError(f"the corpus {name} gives Splits, received {type(splits).__name__}")
            return check_splits(replace(splits, name=name))

        CORPORA[name] = Corpus(name, _first_line(load), own, checked, num_removed, reads_itself=True)
        return load

    return register


def _check_name(name: str, taken: Collection[str], kind: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(f"the name of {kind} is lower-case letters, digits and '_', a letter first; received {name!r}")
    ending = next((suffix for suffix in ARM_SUFFIXES if name.endswith(suffix)), None)
    if ending is not None:
        raise InputError(f"the ending {ending!r} is of arms that a method gives; received the name {name!r}")
    _check_free(name, taken, kind)


def _check_free(name: str, taken: Collection[str], kind: str) -> None:
    if name in taken:
        raise InputError(f"the name of {kind} is its own; {name!r} is taken: choose another")


def _check_flags(kind: type | None, what: str, beside: Iterable[Corpus], prefix: str = "") -> None:
    """Raises InputError where a field's flag is one that a command has already, or one of these corpora."""
    own = () if kind is None else flags_of(kind, prefix)
    taken = {"--help", *flags_of(LdsConfig), *flags_of(LeaderboardConfig)}
    for name, defaults in plugin_defaults().items():
        taken |= set(flags_of(type(defaults), flag_prefix(name)))
    for other in beside:
        taken |= set(flags_of(other.options))
    for flag in own:
        if flag in taken:
            raise InputError(f"{what} has a flag of its own; {flag} is taken: give the field another name")


def _defaults(settings: type, what: str) -> Any:
    """An instance of default values."""
    if not is_dataclass(settings) or not settings.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise InputError(f"{what} are a frozen dataclass, received {settings!r}")
    try:
        made = settings()
    except TypeError as error:
        raise InputError(f"{what} have a default for every field: {error}") from error
    nested = [field.name for field in fields(made) if is_dataclass(getattr(made, field.name))]
    if nested:
        raise InputError(f"{what} are numbers, words and lists of them; {', '.join(nested)} holds settings of its own")
    check_storable(made, what)
    return made


def _check_selection(name: str, selected: np.ndarray, evidence: Evidence, num_removed: int) -> None:
    """Raises RunError where an arm gives anything but so many different positions of the train split."""
    is_selection = selected.ndim == 1 and selected.dtype.kind in "iu" and len(np.unique(selected)) == num_removed
    if not is_selection or len(selected) != num_removed or not 0 <= selected.min() <= selected.max() < len(evidence):
        raise RunError(
            f"the arm {name} gives {num_removed} different positions of the {len(evidence)} train examples, counted "
            f"from 0; received {selected.dtype} of shape {selected.shape}, first {selected.ravel().tolist()[:5]}"
        )


def _check_floors(name: str, selected: np.ndarray, evidence: Evidence) -> None:
    """Raises RunError where an arm that goes by an alignment leaves a cell less than --cell-floor says."""
    if evidence.cell_floors is None:
        return
    left = np.bincount(np.delete(evidence.cells, selected), minlength=len(evidence.cell_floors))
    if (left < evidence.cell_floors).any():
        raise RunError(
            f"the arm {name} goes by an alignment and leaves each cell its --cell-floor; its selection cuts deeper: "
            "choose among `evidence.may_go(alignment)`, or take --cell-floor 0"
        )


def _origin(function: Callable[..., Any]) -> str:
    """What tells a function from others of its name: its module, or its text where that is any script or notebook.

    Raises InputError where it is no function: what an object or a partial function holds would enter no key.
    """
    if not inspect.isfunction(function):
        raise InputError(
            f"what is registered is a function, received {function!r}: make the values that it holds fields of settings"
        )
    module: str = function.__module__
    if module != "__main__":
        return module
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError):  # typed at a prompt: what it was compiled to
        code = function.__code__
        text = f"{code.co_code.hex()} {code.co_names} {code.co_consts}"
    return f"{module} {content_hash(text)}"


def _first_line(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0].rstrip(".")
