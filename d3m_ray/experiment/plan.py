"""What an experiment asks for: every input checked, its context, its plan, and the trials that can be run already."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from d3m_ray.data.checks import shown
from d3m_ray.data.corpora import corpus_of, load_splits
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import IN_USE, SHARED_SETTINGS, ExperimentConfig, plugins_of, with_plugins
from d3m_ray.experiment.corpus import store_corpus
from d3m_ray.experiment.keys import (
    NOTHING,
    alignment_key,
    attribution_method,
    checkpoint_keys,
    group_scores_key,
    scored_on,
    scores_key,
)
from d3m_ray.experiment.progress import Progress
from d3m_ray.keys import content_hash
from d3m_ray.metrics.groups import CELL_SEPARATOR
from d3m_ray.records import Splits, cells_of
from d3m_ray.selection.arms import ARMS, Evidence, can_select, cell_floors, selection_of
from d3m_ray.selection.numbers import removal_counts
from d3m_ray.store.experiments import PlannedTrial
from d3m_ray.store.preparations import Preparation
from d3m_ray.store.provenance import current_provenance
from d3m_ray.store.store import Store
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.training.registry import ERM, RECIPES, Recipe
from d3m_ray.training.settings import Precision
from d3m_ray.trials.trial import TrialContext, TrialSpec, plan_trial
from d3m_ray.waiting import announced
from d3m_ray.wording import counted

# Of the record: the same data and model are the same, whatever they are called and wherever they lie.
FOLLOW_FROM_DATA = ("command", "corpus", "label_names", "notes", "num_dropped", "warnings")
FALLBACK_NUMBERS = ("5%", "10%", "20%")  # where train is too small for any of a sweep's own counts


@dataclass(frozen=True, eq=False)
class Prepared:
    """An experiment that may begin: every input was checked, and nothing of it is stored yet."""

    config: ExperimentConfig
    context: TrialContext
    preparation: Preparation
    """What preparing its model came to, now or in an earlier run."""
    keep_as: str | None = None
    """Under which key the store is to keep that; None where it has it already, or must not."""


def read_corpus(config: ExperimentConfig, progress: Progress) -> Splits:
    """The splits, once they are described to the user. Raises DataError where the corpus breaks a rule."""
    with announced("the corpus to be read", progress.stage):
        splits = load_splits(config.corpus, config.data)
    progress.stage(describe(splits))
    return splits


def describe(splits: Splits) -> str:
    """How many examples a corpus has, its labels, and what its loader left out and decided, in one line."""
    sizes = ", ".join(f"{len(examples)} {name}" for name, examples in splits.by_name().items())
    dropped = "; ".join(f"{count} {reason}" for reason, count in splits.num_dropped.items() if count)
    labels = ", ".join(splits.label_names)
    positive = f", of which {splits.label_names[1]} is the positive one" if splits.num_labels == 2 else ""
    parts = [
        f"{splits.name}: {sizes} examples of {counted(len(splits.group_names), 'group')}",
        f"labels {labels}{positive}",
    ]
    return "; ".join([*parts, *splits.notes] + ([f"left out: {dropped}"] if dropped else []))


def with_numbers_that_fit(config: ExperimentConfig, splits: Splits, progress: Progress) -> ExperimentConfig:
    """The configuration with those of its numbers removed that leave at least half of train; says so if not all do."""
    numbers = numbers_that_fit(config.num_removed, len(splits.train))
    if numbers == config.num_removed:
        return config
    progress.stage(
        f"--num-removed is {' '.join(map(str, numbers))} here: the sweep's other numbers take more than half of the "
        f"{len(splits.train)} train examples; name your own to have them"
    )
    return replace(config, num_removed=numbers)


def numbers_that_fit(numbers: Sequence[int | str], num_train: int) -> tuple[int | str, ...]:
    """The numbers removed that leave at least half of train; some shares where none but 0 does."""
    fitting = tuple(n for n in numbers if removal_counts([n], num_train)[0] <= num_train / 2)
    if len(fitting) == len(numbers) or any(removal_counts(fitting, num_train)):
        return fitting
    return (*fitting, *FALLBACK_NUMBERS)


def make_context(config: ExperimentConfig, splits: Splits, store: Store) -> TrialContext:
    """The tokenised splits, the pretrained model and the hashes that all trials share."""
    from d3m_ray.training.precision import resolved_precision
    from d3m_ray.training.preparation import prepare_model

    check_numbers(config, splits)
    device = config.execution.trial_device
    precision = resolved_precision(config.training.precision, device)
    tried = precision if device == "cpu" else "float32"  # here, where the GPU of the trials may not be
    prepared = prepare_model(config.model, splits, config.training.max_length, tried)
    bare = context_of(config, splits, store, prepared.pretrained.name, prepared.content_hash, precision)
    return replace(bare, pretrained=prepared.pretrained, tokens=prepared.tokens, warnings=prepared.warnings)


def check_numbers(config: ExperimentConfig, splits: Splits) -> None:
    """Raises InputError where the numbers removed are more than train, or the cell floors, leave."""
    most = max(removal_counts(config.num_removed, len(splits.train)))
    if most >= len(splits.train):
        raise InputError(f"--num-removed leaves train examples; received {most}, train has {len(splits.train)}")
    _check_floor_leaves_enough(config, splits, most)


def context_of(
    config: ExperimentConfig, splits: Splits, store: Store, model: str, model_hash: str, precision: Precision
) -> TrialContext:
    """What the trials share, of the model its name alone, without tokens."""
    data_hash = splits.content_hash()
    settings = content_hash(data_hash, model_hash, shared_settings(config))[:8]
    return TrialContext(
        experiment=config.experiment or f"{splits.name}-{settings}",
        store=store,
        splits=splits,
        tokens={},
        pretrained=PretrainedModel(model, {}, {}, ()),
        training=replace(config.training, precision=precision),
        robust=config.robust,
        data_hash=data_hash,
        model_hash=model_hash,
        device=config.execution.trial_device,
        recipes=recipes_of(config),
    )


def recipes_of(config: ExperimentConfig) -> dict[str, Recipe]:
    """The recipes of the arms and of the base models; those of plug-ins with the settings of this run."""
    names = dict.fromkeys([ERM, *(ARMS[method].recipe for method in config.methods)])
    return {name: replace(RECIPES[name], settings=config.plugins.get(name, RECIPES[name].settings)) for name in names}


def floors_of(config: ExperimentConfig, splits: Splits) -> np.ndarray | None:
    """[G * L] int64: how many train examples each cell keeps at least, where an arm goes by alignment."""
    if config.selection.cell_floor == 0:
        return None
    num_cells = len(splits.group_names) * splits.num_labels
    cells = cells_of(splits.train.groups, splits.train.labels, splits.num_labels)
    return cell_floors(cells, num_cells, config.selection.cell_floor)


def _check_floor_leaves_enough(config: ExperimentConfig, splits: Splits, most: int) -> None:
    """Raises InputError where an arm that goes by alignment cannot remove as many as it is asked to."""
    floors = floors_of(config, splits)
    guarded = [m for m in config.methods if ARMS[m].alignment is not None and not ARMS[m].chooses_number]
    if floors is None or not guarded:
        return
    num_free = len(splits.train) - int(floors.sum())
    if most > num_free:
        raise InputError(
            f"--num-removed leaves each cell what --cell-floor {config.selection.cell_floor} keeps, "
            f"{int(floors.sum())} of {len(splits.train)} train examples in all; received {most}, of which "
            f"{guarded[0]} can remove {num_free}: lower one of the two"
        )


def shared_settings(config: ExperimentConfig) -> dict[str, Any]:
    """What all trials of one experiment have in common, besides data and model."""
    settings = {name: asdict(getattr(config, name)) for name in SHARED_SETTINGS}
    plugins = {name: asdict(own) for name, own in config.plugins.items()}
    if plugins:
        settings["plugins"] = plugins
    return {**settings, "num_checkpoints": config.num_checkpoints, "protocol": config.protocol}


def check_name_is_free(config: ExperimentConfig, context: TrialContext) -> None:
    """Raises InputError where the experiment's name stands for other settings in the store already."""
    configuration = _recorded(config, context)
    begun = context.store.read_experiment(context.experiment)
    recorded = {} if begun is None else begun.configuration  # an earlier version recorded less
    if begun is not None:
        known = plugins_of(configuration), plugins_of(recorded)
        configuration, recorded = (with_plugins(one, *known) for one in (configuration, recorded))
    differing = sorted(
        key
        for key in configuration.keys() & recorded.keys()
        if key not in FOLLOW_FROM_DATA and recorded[key] != configuration[key]
    )
    if differing:
        told = "; ".join(line for key in differing for line in _difference(key, recorded[key], configuration[key]))
        raise InputError(
            f"an experiment's trials share their settings; {context.experiment!r} was begun with other values of "
            f"{', '.join(differing)}: give this one another --experiment ({told})"
        )


def _difference(key: str, begun: Any, asked: Any) -> list[str]:
    """Each entry that differs, by its name, as it was begun with and as it is asked for."""
    if isinstance(begun, Mapping) and isinstance(asked, Mapping):
        entries = sorted(name for name in begun.keys() | asked.keys() if begun.get(name) != asked.get(name))
        return [line for name in entries for line in _difference(name, begun.get(name), asked.get(name))]
    return [f"{key} was {shown(begun)} and is {shown(asked)}"]


def record_plan(prepared: Prepared, progress: Progress, plan: Sequence[PlannedTrial] | None = None) -> None:
    """Write what this experiment is and plans, by which software and where, and the examples that it is about.

    The plan is every trial that is asked for, unless another one is given.
    """
    config, context = prepared.config, prepared.context
    recorded, keys = _recorded(config, context), shared_keys(config, context)
    begun = context.store.read_experiment(context.experiment)
    in_use = {**(begun.configuration.get(IN_USE, {}) if begun else {}), **recorded.get(IN_USE, {})}
    recorded |= {IN_USE: in_use} if in_use else {}
    made_by = current_provenance(prepared.preparation.device_name)
    planned = asked_trials(config, context) if plan is None else plan
    context.store.write_experiment(context.experiment, recorded, planned, keys, made_by)
    if prepared.keep_as is not None:
        context.store.write_preparation(prepared.keep_as, prepared.preparation)
    progress.log_to(context.store, context.experiment)
    store_corpus(context.store, context.splits, context.data_hash, config.store_texts, progress.stage)


def _recorded(config: ExperimentConfig, context: TrialContext) -> dict[str, Any]:
    """What the store keeps of an experiment's configuration."""
    in_use = {name: asdict(own) for name, own in config.plugins_in_use().items()}
    configuration = {
        "dataset": context.splits.name,
        "model": context.pretrained.name,
        "data_hash": context.data_hash,
        "model_hash": context.model_hash,
        "label_names": context.splits.label_names,
        "num_dropped": dict(context.splits.num_dropped),
        "notes": context.splits.notes,
        "command": {
            "corpus": corpus_of(config.corpus).name,
            "model": config.model,
            "store_texts": config.store_texts,
        },
        "corpus": {"data": None if config.data is None else str(config.data), **asdict(config.corpus)},
        **({"warnings": context.warnings} if context.warnings else {}),
        "computed": {
            "fits": {"device": context.device, "precision": context.training.precision},
            "scores": scored_on(config, context),
        },
        **shared_settings(config),
        **({IN_USE: in_use} if in_use else {}),
    }
    as_read_again: dict[str, Any] = json.loads(json.dumps(configuration))  # JSON has no tuples
    return as_read_again


def shared_keys(config: ExperimentConfig, context: TrialContext) -> dict[str, dict[str, str]]:
    """By table, the keys of what the trials share: a reader of the store finds an experiment's own rows by them."""
    names = alignment_names(config)
    return {
        "fits": {f"base model, seed {seed}": key for seed, key in enumerate(checkpoint_keys(config, context))},
        "scores": {name: group_scores_key(name, config, context) for name in names},
        "query_scores": {
            method: scores_key(method, config, context)
            for name in names
            if (method := attribution_method(name)) != name
        },
        "alignments": {name: alignment_key(name, config, context) for name in names},
    }


def asked_trials(config: ExperimentConfig, context: TrialContext) -> list[PlannedTrial]:
    """Every trial that is asked for, fewest removed first; of no number removed where the arm decides it."""
    return [
        PlannedTrial(method, number, seed)
        for number in (*sorted(removal_counts(config.num_removed, len(context.splits.train))), None)
        for seed in config.seeds
        for method in config.methods
        if ARMS[method].chooses_number == (number is None)
    ]


def plan_trials(
    config: ExperimentConfig, context: TrialContext, evidence: Evidence, methods: Collection[str] | None = None
) -> list[TrialSpec]:
    """Every trial, of all arms or of these, whose selection can be made: whose arm waits for nothing that is not there.

    What it waits for is what the evidence lacks.
    """
    trials = []
    for method, number, seed in asked_trials(config, context):
        arm = ARMS[method]
        if methods is not None and method not in methods:
            continue
        if arm.best_of is not None:
            continue  # a stage of its own: it takes the fits of another arm
        if number == 0:
            trials.append(plan_trial(context, method, NOTHING, seed))
        elif can_select(method, evidence, number):
            chosen = selection_of(method, evidence, number or 0, seed)
            trial = plan_trial(context, method, chosen.removed, seed, arm.recipe)
            told = _of_spared(chosen.spared, config, context) | ({"rounds": chosen.rounds} if chosen.rounds else {})
            trials.append(replace(trial, selection=told))
    return trials


def _of_spared(spared: np.ndarray, config: ExperimentConfig, context: TrialContext) -> dict[str, Any]:
    """What a trial's metadata say where the cell floors changed its selection: how many of which cell they kept."""
    if not len(spared):
        return {}
    splits = context.splits
    cells = Counter(
        f"{splits.group_names[group]}{CELL_SEPARATOR}{splits.label_names[label]}"
        for group, label in zip(splits.train.groups[spared], splits.train.labels[spared], strict=True)
    )
    return {"cell_floor": config.selection.cell_floor, "num_spared": len(spared), "spared_cells": dict(cells)}


def alignment_names(config: ExperimentConfig) -> list[str]:
    """The alignments that the arms read, each once."""
    return list(dict.fromkeys(a for method in config.methods if (a := ARMS[method].alignment) is not None))


def reads_base_models(config: ExperimentConfig) -> bool:
    """Whether an arm waits for the base models."""
    return any(ARMS[method].alignment or ARMS[method].reads_cell_losses for method in config.methods)
