"""How well each method's scores foretell retraining: the linear datamodeling score over random half-subsets.

Shapes: M subsets, N train examples, Q val examples, G groups. A subset is an ordinary trial of the arm `random` that
removes half of train; subset m is also trained with seed m.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from d3m_ray.alignment import group_scores
from d3m_ray.attribution.targets import target_values
from d3m_ray.config import LdsConfig, QueryTarget
from d3m_ray.datamodeling import MIN_SUBSETS, DatamodelingScores, linear_datamodeling_scores
from d3m_ray.engine import Engine
from d3m_ray.errors import RunError
from d3m_ray.experiment.run import Outcome, Run
from d3m_ray.experiment.scoring import is_scored, query_scores
from d3m_ray.experiment.stages import base_models, discard_incomplete, train, unless_it_fails
from d3m_ray.experiment.story import keep_supported
from d3m_ray.failures import Unscored, told
from d3m_ray.keys import content_hash
from d3m_ray.planning import (
    Prepared,
    check_name_is_free,
    make_context,
    plan_trials,
    read_corpus,
    record_plan,
    scores_key,
)
from d3m_ray.progress import Progress
from d3m_ray.records import Splits
from d3m_ray.selection import Evidence
from d3m_ray.store import Store
from d3m_ray.trial import TrialContext, TrialSpec, stored_predictions
from d3m_ray.waiting import announced


@dataclass(frozen=True, eq=False)
class PreparedLds:
    """An LDS that may begin: every input was checked, and nothing of it is stored yet."""

    config: LdsConfig
    subsets: Prepared
    """The halves of train, as an experiment of random removal."""


def prepare_lds(config: LdsConfig, store: Store, progress: Progress) -> PreparedLds:
    """As `planning.prepare`, for the halves of train that the scores are judged by."""
    splits = read_corpus(config.experiment, progress)
    subsets = dataclasses.replace(
        config.experiment,
        methods=("random",),
        num_removed=(len(splits.train) // 2,),
        seeds=tuple(range(config.num_subsets)),
    )
    with announced(f"model {subsets.model} to load", progress.stage):
        context = make_context(subsets, splits, store)
    config = dataclasses.replace(config, experiment=keep_supported(config.experiment, context, progress))
    if subsets.experiment is None:  # apart from the sweep of the same settings, whose table would show the halves
        context = dataclasses.replace(context, experiment=f"{context.experiment}-lds")
    check_name_is_free(subsets, context)
    return PreparedLds(config, Prepared(subsets, context))


def run_lds(prepared: PreparedLds, engine: Engine, progress: Progress) -> Outcome:
    """Bring the store to hold the LDS of every method, per val example and per group."""
    config, subsets, context = prepared.config, prepared.subsets.config, prepared.subsets.context
    store, splits = context.store, context.splits
    record_plan(prepared.subsets, progress)
    run = Run(config.experiment, context, engine, progress)
    discard_incomplete(run)

    progress.stage(f"experiment {context.experiment} in {store}: base models, and {config.num_subsets} halves of train")
    trials = plan_trials(subsets, context, Evidence(splits.train.labels, splits.train.groups, splits.num_labels))
    keep = not all(is_scored("query_scores", method, run) for method in config.experiment.methods)
    wanted = [*base_models(run, keep_weights=keep), *(trial.fit for trial in trials)]
    failed = train(run, trials, wanted)
    given_up = {failure.fit_key for failure in failed}
    trained = [trial for trial in trials if trial.fit.fit_key not in given_up]
    if len(trained) < MIN_SUBSETS:
        reasons = "; ".join(told(failed, ()))
        raise RunError(f"an LDS takes at least {MIN_SUBSETS} subsets, {len(trained)} could be trained: {reasons}")
    kept, outputs = _retrained(context, trained, config.experiment.alignment.query_target)
    fit_keys = [trial.fit.fit_key for trial in trained]
    unscored: list[Unscored] = []
    for method in config.experiment.methods:
        measure = functools.partial(_measure, method, run, kept, outputs, fit_keys)
        unscored += unless_it_fails(method, run, failed, measure)
    return Outcome(context.experiment, failed, unscored)


def _measure(method: str, run: Run, kept: np.ndarray, outputs: np.ndarray, fit_keys: Sequence[str]) -> None:
    """Store the LDS of one method, given what `_retrained` gives and the fits of the subsets."""
    run.progress.stage(f"attribution by {method}, for every val example")
    matrix, seconds = query_scores(method, run)
    rows = _lds_rows(matrix, kept, outputs, run.context.splits)
    _record(method, run, rows.assign(scoring_seconds=seconds), fit_keys)


def _lds_rows(matrix: np.ndarray, kept: np.ndarray, outputs: np.ndarray, splits: Splits) -> pd.DataFrame:
    """The LDS of one method's scores [N, Q] for each val example and each group, given what `_retrained` gives."""
    groups, names = splits.val.groups, splits.group_names
    scores_by_group, outputs_by_group = (group_scores(values, groups, len(names)) for values in (matrix, outputs))
    of_queries = linear_datamodeling_scores(matrix, kept, outputs)
    of_groups = linear_datamodeling_scores(scores_by_group, kept, outputs_by_group)
    rows = [_rows("query", splits.val.example_ids, of_queries), _rows("group", names, of_groups)]
    return pd.concat(rows, ignore_index=True).assign(num_subsets=len(kept))


def _record(method: str, run: Run, rows: pd.DataFrame, fit_keys: Sequence[str]) -> None:
    """Store the LDS of one method over the subsets that these fits were trained on."""
    context, of_scores = run.context, scores_key(method, run.config, run.context)
    query_target = run.config.alignment.query_target
    key = content_hash(of_scores, query_target, *fit_keys)
    configuration: dict[str, Any] = {
        "data_hash": context.data_hash,
        "model_hash": context.model_hash,
        "scores_key": of_scores,
        "query_target": query_target,
        "fits": list(fit_keys),
    }
    context.store.write("lds", key, rows.assign(lds_key=key, experiment=context.experiment), configuration, method)


def _retrained(
    context: TrialContext, trials: Sequence[TrialSpec], query_target: QueryTarget
) -> tuple[np.ndarray, np.ndarray]:
    """[M, N] whether a subset keeps a train example, and [M, Q] the targets in val of the model retrained on it."""
    kept = np.ones((len(trials), len(context.splits.train)), dtype=bool)
    for row, trial in zip(kept, trials, strict=True):
        row[trial.fit.removed] = False
    val = context.splits.val
    margins = np.stack([stored_predictions(context.store, trial.fit.fit_key, val).margins for trial in trials])
    return kept, target_values(torch.from_numpy(margins), query_target).numpy()


def _rows(kind: str, targets: Sequence[str] | np.ndarray, scores: DatamodelingScores) -> pd.DataFrame:
    """A row for each target, and one, whose target is `mean`, for the mean over them."""
    return pd.DataFrame(
        {
            "kind": kind,
            "target": [*targets, "mean"],
            "lds": [*scores.lds, scores.mean],
            "lds_low": [*scores.low, scores.mean_low],
            "lds_high": [*scores.high, scores.mean_high],
        }
    )
