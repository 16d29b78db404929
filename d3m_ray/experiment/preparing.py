"""The model prepared and the arms tried on it, or what that came to before: what is finished needs no model again.

The store keeps what a preparation came to under a hash of all that it follows from. Where that cannot be told, as of a
name on the hub or on a machine with a GPU, the model is prepared each time.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from d3m_ray.errors import RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.plan import Prepared, check_numbers, context_of, make_context
from d3m_ray.experiment.progress import Progress
from d3m_ray.keys import content_hash
from d3m_ray.records import Splits
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.preparations import Preparation
from d3m_ray.store.provenance import environment_hash
from d3m_ray.store.store import Store
from d3m_ray.training.model_name import files_of_model
from d3m_ray.training.pretrained import PretrainedModel
from d3m_ray.trials.trial import TrialContext
from d3m_ray.waiting import announced

if TYPE_CHECKING:
    from d3m_ray.training.batching import TokenizedExamples

PREPARATION_VERSION = "1"  # raised when the same inputs come to other fields of `Preparation`


def prepare_on(config: ExperimentConfig, splits: Splits, store: Store, progress: Progress) -> Prepared:
    """The experiment with the arms that can serve the model, and what its trials share; writes nothing.

    Raises InputError where the model cannot be loaded or read the splits, or as `supported`.
    """
    check_numbers(config, splits)
    key = preparation_key(config, splits)
    known = None if key is None else store.read_preparation(key)
    if key is not None and known is not None:
        _tell_of(known.warnings, progress)
        load = functools.cache(functools.partial(_load, config, splits, store, progress, key, known))
        context = context_of(config, splits, store, known.model, known.model_hash, known.precision)
        return Prepared(config, replace(context, warnings=known.warnings, load=load), known)
    context, found = _prepared_context(config, splits, store, progress)
    _tell_of(found.warnings, progress)
    served = _served(config, context, progress)
    # Files that changed while they were read are not those of the key; arms that were left out are told each time.
    keep_as = key if served is config and preparation_key(config, splits) == key else None
    return Prepared(served, context, found, keep_as)


def preparation_key(config: ExperimentConfig, splits: Splits) -> str | None:
    """Hash of all that preparing the model, and trying the arms on it, follows from; None where that cannot be told."""
    devices = (config.execution.trial_device, config.execution.worker_device)
    environment, model = environment_hash(), files_of_model(config.model)
    if environment is None or model is None or "cuda" in devices:
        return None
    arms = [f"{method} {ARMS[method].alignment} {ARMS[method].recipe}" for method in config.methods]
    tried = {
        "max_length": config.training.max_length,
        "precision": config.training.precision,
        "ekfac": asdict(config.ekfac),
        "dfr_data": config.robust.dfr_data,
        "skip_unsupported": config.skip_unsupported,
    }
    return content_hash(PREPARATION_VERSION, environment, splits.content_hash(), model, arms, tried)


def _prepared_context(
    config: ExperimentConfig, splits: Splits, store: Store, progress: Progress
) -> tuple[TrialContext, Preparation]:
    with announced("torch and transformers to be imported", progress.stage):
        import d3m_ray.training.preparation  # noqa: F401 - the model's part, which takes the longer
        from d3m_ray.training.precision import device_name

    with announced(f"model {config.model} to load, and to read the texts", progress.stage):
        context = make_context(config, splits, store)
    of_trials = context.training.precision
    return context, Preparation(context.pretrained.name, context.model_hash, context.warnings, of_trials, device_name())


def _load(
    config: ExperimentConfig, splits: Splits, store: Store, progress: Progress, key: str, known: Preparation
) -> "tuple[PretrainedModel, Mapping[str, TokenizedExamples]]":
    """The model and the tokens. Raises RunError where they are not what was kept of them, on which keys rest by now."""
    context, found = _prepared_context(config, splits, store, progress)
    if found != known:
        store.write_preparation(key, found)
        raise RunError(
            f"preparing a model comes to the same each time; of {config.model} {store} had kept something else, which "
            "is replaced: run the same command again"
        )
    return context.pretrained, context.tokens


def _tell_of(warnings: Iterable[str], progress: Progress) -> None:
    for warning in warnings:
        progress.stage(f"warning: {warning}")


def _served(config: ExperimentConfig, context: TrialContext, progress: Progress) -> ExperimentConfig:
    """The configuration with the arms that can serve the model. Raises as `supported`."""
    from d3m_ray.experiment.compatibility import supported

    with announced("each method's gradient step to be tried on the model", progress.stage):
        return supported(config, context.pretrained, context.tokens, progress.stage)
