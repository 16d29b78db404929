"""A whole experiment: a corpus, a model, the arms that are compared, and how."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.attribution.registry import METHODS, flag_prefix
from d3m_ray.attribution.trak.settings import TrakConfig
from d3m_ray.data.corpora import CORPORA, corpus_of
from d3m_ray.entry_points import load_plugins
from d3m_ray.records import FIRST_DRAW
from d3m_ray.rules import check, check_known, check_methods, check_storable, check_values, without_secret
from d3m_ray.selection.arms import ARMS, AUTO_SUFFIX, check_best_arms, check_rounds
from d3m_ray.selection.numbers import check_removals
from d3m_ray.selection.settings import AlignmentConfig, SelectionConfig
from d3m_ray.training.registry import RECIPES
from d3m_ray.training.settings import RobustConfig, TrainingConfig
from d3m_ray.trials.settings import ExecutionConfig

Protocol = Literal["standard", "thesis"]

SHARED_SETTINGS = (
    "training",
    "robust",
    "trak",
    "ekfac",
    "metagradient",
    "alignment",
    "selection",
)  # fields that all trials share
IN_USE = "plugins_in_use"  # of a record: settings of plug-ins, those by default too, which an author may change
MAX_NAME_LENGTH = 100  # a name becomes folders and, with an ending, files: 255 bytes at most
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def plugin_defaults() -> dict[str, Any]:
    """By method or recipe that a plug-in brought with settings of its own, these by default."""
    of_methods = {name: method.defaults for name, method in METHODS.items()}
    of_recipes = {name: recipe.settings for name, recipe in RECIPES.items()}  # no name is in both: each gives an arm
    return {name: own for name, own in (of_methods | of_recipes).items() if own is not None}


def plugins_of(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Of a recorded configuration, by name the settings of plug-ins that are known: those in use, and those given."""
    return {**configuration.get(IN_USE, {}), **configuration.get("plugins", {})}


def with_plugins(configuration: Mapping[str, Any], *known: Mapping[str, Any]) -> dict[str, Any]:
    """With the settings of plug-ins in one place: those that were given, and those that both sides know."""
    ours, given = plugins_of(configuration), configuration.get("plugins", {})
    told = {name: values for name, values in ours.items() if name in given or all(name in each for each in known)}
    return {**{key: value for key, value in configuration.items() if key != IN_USE}, "plugins": told}


@dataclass(frozen=True)
class ExperimentConfig:
    """A corpus, a model, the arms that are compared, and how. Every field is a flag of each sweep."""

    corpus: Any
    """How the corpus is cut into splits: `d3m_ray.Toxigen(...)` or its like, or a name for what it is by default."""
    data: Path | None = None
    """Folder of ToxiGen or HateXplain in its original format, or of train.csv, val.csv and test.csv (left out: the
    hub); folder or file of an own corpus."""
    model: str = "google-bert/bert-base-uncased"
    """A transformers folder or hub name, or "tiny": a two-layer BERT of random weights."""
    store: str = "results"
    """Folder or URI (s3://, gs://) of the results; the same store goes on where it was left."""
    store_texts: bool = True
    """Whether the store keeps the texts of train beside their labels and groups, to be shown with their scores."""
    methods: tuple[str, ...] = ("trak", "random")
    """Arms that are compared: an attribution method (trak, ekfac, ...), a control (random, ...), a way to train
    (group_dro, ...). The README lists them all."""
    num_removed: tuple[int | str, ...] = (0, 50, 100, 200)
    """How many train examples an arm removes, as counts or as shares of train (5%); 0 is the base model."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Every arm is trained once per seed; of fewer than five there are no intervals."""
    num_checkpoints: int = 1
    """Base models that attribution averages over; their seeds count from 0."""
    skip_unsupported: bool = False
    """Whether methods that cannot serve the model are left out, and the others go on; else they end the command."""
    protocol: Protocol = "standard"
    """standard: removal is chosen on train and val. thesis: as a master's thesis had it, ON TEST, for comparison."""
    experiment: str | None = None
    """Name of the experiment in the store; left out, the corpus and a hash of its settings."""
    figures: Path | None = None
    """Folder for tables and figures; left out, `figures` in a local store, else in this folder."""
    tensorboard: Path | None = None
    """Folder of TensorBoard's event files: settings and val figures of each trial, in the end its test figures too."""
    mlflow: str | None = None
    """MLflow's tracking URI, or a folder, that is told the same."""
    training: TrainingConfig = TrainingConfig()
    robust: RobustConfig = RobustConfig()
    trak: TrakConfig = TrakConfig()
    ekfac: EkfacConfig = EkfacConfig()
    metagradient: MetagradientConfig = MetagradientConfig()
    alignment: AlignmentConfig = AlignmentConfig()
    selection: SelectionConfig = SelectionConfig()
    execution: ExecutionConfig = ExecutionConfig()
    plugins: tyro.conf.Suppress[Mapping[str, Any]] = field(default_factory=dict)
    """The settings of methods and recipes that a plug-in brought, by name; those that are its defaults are left out."""

    def settings_of(self, method: str) -> Any:
        """The settings of an attribution method, None where it has none."""
        of = METHODS[method]
        if of.settings is None:
            return None
        return self.plugins.get(method, of.defaults) if of.defaults is not None else getattr(self, of.settings)

    def plugins_in_use(self) -> dict[str, Any]:
        """By name the settings of plug-ins' methods and recipes that the arms rest on, also those by default."""
        arms = [ARMS[method] for method in self.methods]
        used = {(arm.alignment or "").removesuffix(AUTO_SUFFIX) for arm in arms} | {arm.recipe for arm in arms}
        return {name: self.plugins.get(name, own) for name, own in plugin_defaults().items() if name in used}

    def __post_init__(self) -> None:
        load_plugins()
        self._take_in_plain_values()
        corpus = corpus_of(self.corpus)
        check_methods(self.methods, ARMS, "arm")
        check_removals(self.num_removed)
        are_whole = bool(self.seeds) and all(isinstance(seed, Integral) for seed in self.seeds)
        check(are_whole, "--seeds is one or more whole numbers", self.seeds)
        highest = max(self.seeds)
        rule = f"each of --seeds is below {FIRST_DRAW}: others are those of an LDS's subsets"
        check(highest < FIRST_DRAW, rule, highest)
        check(self.num_checkpoints >= 1, "--num-checkpoints is at least 1", self.num_checkpoints)
        check_values(self)
        check_storable(self.corpus, f"the options of {corpus.name}")
        self._check_plugins()
        check_best_arms(self.methods, self.num_removed, self.seeds, self.protocol)
        check_rounds(self.methods, self.selection.rounds)
        name = self.experiment
        name_ok = name is None or (isinstance(name, str) and _NAME.fullmatch(name) is not None)
        rule = "--experiment is letters, digits, '.', '_' and '-', a letter or digit first"
        check(name_ok, rule, self.experiment)
        long_rule = f"--experiment has at most {MAX_NAME_LENGTH} characters"
        check(len(self.experiment or "") <= MAX_NAME_LENGTH, long_rule, self.experiment)
        check(bool(self.store.strip()), "--store is a folder or URI", self.store)
        check(bool(self.model.strip()), "--model is a folder, a hub name or tiny", self.model)
        check(self.mlflow is None or bool(self.mlflow.strip()), "--mlflow is a tracking URI or a folder", self.mlflow)
        harmless = without_secret(self.mlflow or "")
        rule = "--mlflow holds no password, which MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are for"
        check(harmless is None, rule, harmless)
        for name in ("methods", "num_removed", "seeds"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))

    def _take_in_plain_values(self) -> None:
        """A corpus by its name, paths as texts, lists and arrays of numbers, as one writes them in Python."""
        if isinstance(self.corpus, str):
            check_known("the corpus", self.corpus, CORPORA)
            object.__setattr__(self, "corpus", CORPORA[self.corpus].options())
        for name, kind in (("data", Path), ("figures", Path), ("tensorboard", Path), ("store", str), ("model", str)):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, kind(value))
        for name in ("methods", "num_removed", "seeds"):
            value = getattr(self, name)
            is_list = isinstance(value, Iterable) and not isinstance(value, str)
            check(is_list, f"--{name.replace('_', '-')} is a list of values", value)
            object.__setattr__(self, name, tuple(value.tolist() if isinstance(value, np.ndarray) else value))

    def _check_plugins(self) -> None:
        """Raises InputError where settings are given to what has none, or not those of the method or recipe."""
        own, known = {}, plugin_defaults()
        for name, settings in self.plugins.items():
            defaults = known.get(name)
            kind = "no settings of a plug-in" if defaults is None else type(defaults).__name__
            check(defaults is not None and isinstance(settings, type(defaults)), f"{name} takes {kind}", settings)
            check_values(settings, flag_prefix(name))
            check_storable(settings, f"the settings of {name}")
            if settings != defaults:
                own[name] = settings
        object.__setattr__(self, "plugins", own)
