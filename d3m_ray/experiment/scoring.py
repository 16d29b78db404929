"""Attribution and group alignment as stages: scores of every group, pseudo-group or query, from the store or made.

Shapes: N train examples, G groups or pseudo-groups, Q queries.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.registry import METHODS
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.keys import (
    alignment_key,
    attribution_method,
    checkpoint_keys,
    group_scores_key,
    query_split,
    scored_on,
    scores_key,
    scores_weighed_groups,
    scoring_precision,
)
from d3m_ray.experiment.plan import alignment_names, shared_settings
from d3m_ray.experiment.run import Run
from d3m_ray.selection.alignment import group_alignment, pseudo_groups
from d3m_ray.trials.trial import TrialContext
from d3m_ray.waiting import Say
from d3m_ray.wording import counted

if TYPE_CHECKING:
    from d3m_ray.attribution.inputs import Checkpoint
    from d3m_ray.attribution.scorers import Score

WEIGHED_GROUPS = "weighed groups"  # the query set of a method that scores the weighed sum of the groups' targets
AFTER_SCORES = ("alignment", "selection")  # settings that scores know nothing of
WELL_COVERED = 0.9  # of the parameters: what a method leaves out is said below
BARELY_COVERED = 0.1  # of it: what is read says little of what training changes


def is_scored(table: str, method: str, run: Run) -> bool:
    """Whether a method's scores of each group (table `scores`) or query (`query_scores`) are stored."""
    key = scores_key(method, run.config, run.context, run.removed)
    return run.context.store.has_whole(table, key, method, run.progress.stage)


def table_scored_for(name: str) -> str:
    """The table whose scores an alignment is made from."""
    return "scores" if name == attribution_method(name) else "query_scores"


def lacks_scores(config: ExperimentConfig, context: TrialContext, say: Say) -> bool:
    """Whether an alignment is missing or damaged, and so are the scores that it would be made from."""

    def lacks(name: str) -> bool:
        method, key = attribution_method(name), group_scores_key(name, config, context)

        def has(table: str, key: str, of: str) -> bool:
            return context.store.has_whole(table, key, of, say)

        aligned = has("alignments", alignment_key(name, config, context), name)
        scored = has("scores", key, name)
        return not (aligned and scored) and not has(table_scored_for(name), scores_key(method, config, context), method)

    lacking = [name for name in alignment_names(config) if lacks(name)]  # all are looked at: damaged files are told
    return bool(lacking)


def is_aligned(name: str, run: Run) -> bool:
    """Whether an alignment and the scores that it was made from are stored. Damaged files are deleted, and said."""
    key, say = group_scores_key(name, run.config, run.context, run.removed), run.progress.stage
    made_from = [run.context.store.has_whole("scores", key, name, say)]
    if table_scored_for(name) != "scores":
        made_from.append(is_scored(table_scored_for(name), attribution_method(name), run))
    alignment = alignment_key(name, run.config, run.context, run.removed)
    return run.context.store.has_whole("alignments", alignment, name, say) and all(made_from)


@dataclass(frozen=True, eq=False)
class ScoredGroups:
    """The scores of one alignment before its groups are weighed."""

    names: Sequence[str]
    """G names, of the groups or pseudo-groups."""
    query_groups: np.ndarray
    """[Q] int64 indices into `names`: the group of each query."""
    scores: np.ndarray
    """[N, G] float32, as stored; [N, 1] of their weighed sum where the method scores that."""
    configuration: Mapping[str, Any]
    """What they were made with."""


def attribute_and_align(name: str, run: Run) -> None:
    """Score the train split for each group, or pseudo-group, weigh the groups, and store the alignment.

    Raises FloatingPointError where a train example comes out without a finite alignment.
    """
    context, config = run.context, run.config
    run.progress.stage(f"attribution by {attribution_method(name)}, and group alignment")
    score = _score_groups if name == attribution_method(name) else _score_pseudo_groups
    scored = score(name, run)
    weighting = run.base_group_weights(run.queries, scored.query_groups, len(scored.names))
    is_weighed = scores_weighed_groups(attribution_method(name), config)
    alignment = (
        scored.scores[:, 0].astype(np.float64) if is_weighed else group_alignment(scored.scores, weighting.weights)
    )
    _check_finite(alignment)
    train_split = run.train
    rows = pd.DataFrame(
        {
            "alignment_key": alignment_key(name, config, context, run.removed),
            "example_id": train_split.example_ids,
            "group": np.array(context.splits.group_names)[train_split.groups],
            "label": train_split.labels,
            "alignment": alignment,
        }
    )
    configuration = {
        **scored.configuration,
        "alignment": asdict(config.alignment),
        "scores_key": group_scores_key(name, config, context, run.removed),
        "group_names": list(scored.names),
        "group_losses": weighting.losses.tolist(),
        "group_weights": weighting.weights.tolist(),
    }
    context.store.write("alignments", alignment_key(name, config, context, run.removed), rows, configuration, name)
    seconds = scored.configuration["scoring_seconds"]
    run.progress.stage(
        f"{name}: {counted(len(rows), 'train example')} aligned with {counted(len(weighting.weights), 'group')}; "
        f"scores took {seconds:.1f} s"
    )


def _check_finite(values: np.ndarray) -> None:
    num_lost = int((~np.isfinite(values.reshape(len(values), -1)).all(axis=1)).sum())
    if num_lost:
        raise FloatingPointError(
            f"{num_lost} of {len(values)} train examples have no finite score or alignment: lower --beta, raise the "
            "method's damping or use --precision float32"
        )


def _score_groups(method: str, run: Run) -> ScoredGroups:
    """The scores of every group, or of their weighed sum, from the store or made and stored."""
    names = run.context.splits.group_names
    columns = [WEIGHED_GROUPS] if scores_weighed_groups(method, run.config) else names
    scores, configuration = _scores("scores", method, columns, run)
    return ScoredGroups(names, run.queries.groups, scores, configuration)


def _score_pseudo_groups(name: str, run: Run) -> ScoredGroups:
    """The scores of every pseudo-group: found in the scores of every query, averaged over it, and stored."""
    queries, context = run.queries, run.context
    matrix, made_with = _scores("query_scores", attribution_method(name), queries.example_ids, run)
    groups = pseudo_groups(matrix, queries.labels)
    names = [f"pseudo_{number}" for number in range(int(groups.max()) + 1)]
    scores = group_scores(matrix, groups, len(names)).astype(np.float32)
    key, ids = group_scores_key(name, run.config, context, run.removed), run.train.example_ids
    configuration = {**made_with, "query_ids": queries.example_ids.tolist(), "query_groups": groups.tolist()}
    context.store.write_scores("scores", key, scores, ids, names, configuration, name)
    return ScoredGroups(names, groups, scores, made_with)


def query_scores(method: str, run: Run) -> tuple[np.ndarray, float]:
    """[N, Q] float32 scores of every query, from the store or made and stored, and the seconds that making took."""
    scores, configuration = _scores("query_scores", method, run.queries.example_ids, run)
    return scores, configuration["scoring_seconds"]


def _scores(table: str, method: str, names: Sequence[str] | np.ndarray, run: Run) -> tuple[np.ndarray, dict[str, Any]]:
    """[N, S] float32 scores for each group or query named, from the store or made and stored, and what made them."""
    store, key = run.context.store, scores_key(method, run.config, run.context, run.removed)
    ids = run.train.example_ids
    if not is_scored(table, method, run):
        run = run.whole()
        findings: dict[str, Any] = {}
        scores, seconds = attribute(method, run, each_query=table == "query_scores", record=findings.__setitem__)
        _check_finite(scores)
        configuration = {**_scoring_configuration(run, method, seconds), **findings}
        store.write_scores(table, key, scores, ids, names, configuration, method)
    return store.read_scores(table, key, ids, names, method), store.read_metadata(table, key, method)["configuration"]


def attribute(
    method: str, run: Run, each_query: bool = False, record: Callable[[str, Any], None] = lambda name, value: None
) -> tuple[np.ndarray, float]:
    """[N, S] float32 scores of every group, of their weighed sum, or of each query, and the seconds that they took.

    `record` gets by name what the method found out about them. Raises ValueError where the method scores no query.
    """
    from d3m_ray.attribution.inputs import AttributionInputs
    from d3m_ray.attribution.support import coverage
    from d3m_ray.attribution.worker import forget_models

    run = run.whole()
    context, config = run.context, run.config
    inputs = AttributionInputs(
        checkpoints=_checkpoints(run),
        train=context.tokens["train"].take(run.kept) if len(run.removed) else context.tokens["train"],
        queries=context.tokens[query_split(config)],
        num_groups=len(context.splits.group_names),
        precision=scoring_precision(config, context),
        explains_test=query_split(config) == "test",
        query_target=config.alignment.query_target,
        say=run.progress.stage,
        record=record,
    )
    share = coverage(method, context.pretrained, config.ekfac)
    if share is not None and share < WELL_COVERED:
        doubt = "warning: " if share < BARELY_COVERED else ""
        run.progress.stage(
            f"{doubt}{method} reads the gradients of linear layers, {share:.0%} of the model's parameters"
        )
    settings = config.settings_of(method)
    score = _score_of(method, run, each_query)
    try:
        with run.engine.pool(run.progress.shards) as pool:
            start = time.perf_counter()  # a pool may have waited for a worker to end its fit
            scores = score(inputs, settings, pool)
            seconds = time.perf_counter() - start
    except BaseException:  # Ctrl-C too: a notebook's process goes on
        forget_models()
        raise
    return scores, seconds


def _score_of(method: str, run: Run, each_query: bool) -> "Score":
    """How the method scores what is asked for."""
    of = METHODS[method].load()
    if each_query:
        if of.score_queries is None:
            raise ValueError(f"{method} scores groups, each at the cost of a training run, and no query")
        return of.score_queries
    if of.score_alignment is None or not scores_weighed_groups(method, run.config):
        return of.score_groups
    weighting = run.base_group_weights(run.queries, run.queries.groups, len(run.context.splits.group_names))
    score = of.score_alignment
    return lambda inputs, settings, pool: score(inputs, settings, pool, weighting.weights)


def _checkpoints(run: Run) -> "tuple[Checkpoint, ...]":
    """The base models, with the runs that they come from."""
    from d3m_ray.attribution.inputs import Checkpoint, TrainingRun

    context, device = run.context, run.config.execution.worker_device
    checkpoints = []
    for seed, key in enumerate(checkpoint_keys(run.config, context, run.removed)):
        chosen_epoch = context.store.read_metadata("fits", key)["configuration"]["chosen_epoch"]
        training_run = TrainingRun(context.training, seed, chosen_epoch, context.tokens["train"], run.kept)
        checkpoints.append(
            Checkpoint(key, context.pretrained, context.store.read_checkpoint(key), training_run, device)
        )
    return tuple(checkpoints)


def _scoring_configuration(run: Run, method: str, seconds: float) -> dict[str, Any]:
    from d3m_ray.attribution.support import coverage

    settings = run.config.settings_of(method)
    return {
        **{name: value for name, value in shared_settings(run.config).items() if name not in AFTER_SCORES},
        "data_hash": run.context.data_hash,
        "model_hash": run.context.model_hash,
        "attribution": method,
        "version": METHODS[method].version,
        **({"settings": asdict(settings)} if METHODS[method].defaults is not None else {}),
        "coverage": coverage(method, run.context.pretrained, run.config.ekfac),
        "checkpoints": checkpoint_keys(run.config, run.context, run.removed),
        "query_split": query_split(run.config),
        "query_target": run.config.alignment.query_target if METHODS[method].reads_queries else None,
        "computed": scored_on(run.config, run.context),
        "scoring_seconds": seconds,
    }
