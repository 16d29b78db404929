"""The keys of checkpoints, scores and alignments: hashes of what each is made from."""

from dataclasses import asdict

import numpy as np

from d3m_ray.attribution.registry import METHODS
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.keys import content_hash
from d3m_ray.selection.alignment import ALIGNMENT_VERSION
from d3m_ray.selection.arms import AUTO_SUFFIX
from d3m_ray.training.settings import Precision
from d3m_ray.trials.trial import TrialContext

NOTHING = np.zeros(0, dtype=np.int64)  # the selection of the base model


def checkpoint_keys(config: ExperimentConfig, context: TrialContext, removed: np.ndarray = NOTHING) -> list[str]:
    """The fit keys of the base models, or of those that are trained without what earlier rounds removed."""
    return [context.fit_key(removed, seed) for seed in range(config.num_checkpoints)]


def scores_key(method: str, config: ExperimentConfig, context: TrialContext, removed: np.ndarray = NOTHING) -> str:
    """Hash of an attribution method, the checkpoints and queries that it reads, what it explains, and its settings.

    A checkpoint's key is of the train examples that are left too, which are those that are scored. How the
    groups are weighed enters where the method scores their weighed sum.
    """
    scored_by = METHODS[method]
    own = {name: getattr(config.settings_of(method), name) for name in scored_by.reads}
    explained = (config.alignment.query_target,) if scored_by.reads_queries else ()
    weighed = (asdict(config.alignment),) if scores_weighed_groups(method, config) else ()
    made_from = (*checkpoint_keys(config, context, removed), query_split(config), *explained)
    return content_hash(method, scored_by.version, *made_from, own, scored_on(config, context), *weighed)


def scored_on(config: ExperimentConfig, context: TrialContext) -> dict[str, str]:
    """The device and the precision that scores are computed with, by name."""
    return {"device": config.execution.worker_device, "precision": scoring_precision(config, context)}


def scoring_precision(config: ExperimentConfig, context: TrialContext) -> Precision:
    """The precision that scores are computed in: "auto" is decided once, for all machines."""
    if context.load is not None:  # nothing of it takes a GPU: scores are computed where fits are trained
        return context.training.precision
    from d3m_ray.training.precision import resolved_precision

    return resolved_precision(config.training.precision, config.execution.worker_device)


def scores_weighed_groups(method: str, config: ExperimentConfig) -> bool:
    """Whether a method scores the weighed sum of the groups' targets, and no group alone."""
    return not METHODS[method].scores_queries and not config.metagradient.per_group


def group_scores_key(name: str, config: ExperimentConfig, context: TrialContext, removed: np.ndarray = NOTHING) -> str:
    """Hash of what the scores of an alignment's groups, or pseudo-groups, are made from; their weights do not enter."""
    method = attribution_method(name)
    of_queries = scores_key(method, config, context, removed)
    return of_queries if name == method else content_hash(name, ALIGNMENT_VERSION, of_queries)


def alignment_key(name: str, config: ExperimentConfig, context: TrialContext, removed: np.ndarray = NOTHING) -> str:
    """Hash of an alignment's name, of the scores that it weighs, and how it weighs them."""
    scores = scores_key(attribution_method(name), config, context, removed)
    return content_hash(name, ALIGNMENT_VERSION, scores, asdict(config.alignment))


def attribution_method(alignment: str) -> str:
    """The method whose scores an alignment weighs: Auto-D3M weighs the same scores over other groups."""
    return alignment.removesuffix(AUTO_SUFFIX)


def query_split(config: ExperimentConfig) -> str:
    """The split whose examples are explained and whose losses weigh the groups: val, but for the thesis's protocol."""
    return "test" if config.protocol == "thesis" else "val"
