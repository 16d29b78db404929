"""How well each method's scores predict retraining: the linear datamodeling score over random subsets of train.

Shapes: M subsets, F fits of each, N train examples, Q val examples, G groups, T targets of one kind. Kinds: `query`,
the target of each val example; `group`, its mean over each group; `alignment`, the sum of these means with the weights
of the groups under the base models, which is what removal by alignment goes by.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from d3m_ray.attribution.query_sets import group_scores
from d3m_ray.attribution.registry import METHODS
from d3m_ray.attribution.targets import target_values
from d3m_ray.errors import RunError
from d3m_ray.experiment.failures import Unscored, settle_unselected, told
from d3m_ray.experiment.fits import Fits
from d3m_ray.experiment.keys import alignment_key, scores_key
from d3m_ray.experiment.plan import (
    Prepared,
    asked_trials,
    check_name_is_free,
    plan_trials,
    read_corpus,
    record_plan,
)
from d3m_ray.experiment.preparing import prepare_on
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.run import Outcome, Run, despite_lost_engines
from d3m_ray.experiment.scoring import attribute_and_align, is_scored, query_scores
from d3m_ray.experiment.stages import (
    base_models,
    discard_incomplete,
    forget_superseded,
    forget_superseded_lds,
    gather_evidence,
    tell_of_spared,
    unless_it_fails,
)
from d3m_ray.experiment.studies import LdsConfig
from d3m_ray.experiment.subsets import Subsets, numbers_left_out, plan_subsets
from d3m_ray.keys import content_hash
from d3m_ray.metrics.lds import (
    MIN_SUBSETS,
    Correlations,
    ceiling,
    ceiling_bound,
    fit_correlations,
    linear_datamodeling_scores,
)
from d3m_ray.store.experiments import PlannedTrial
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import Engine, FailedFit
from d3m_ray.trials.trial import TrialContext

LDS_VERSION = "2"  # raised when the same fits and scores give other rows
DIGITS = 6  # of the resampled means that the store keeps, for the differences of methods


@dataclass(frozen=True, eq=False)
class PreparedLds:
    """An LDS that may begin: every input was checked, and nothing of it is stored yet."""

    config: LdsConfig
    removals: Prepared
    """The removals by each method and at random that are measured beside it, as an experiment."""

    @property
    def context(self) -> TrialContext:
        return self.removals.context


@dataclass(frozen=True, eq=False)
class Study:
    """What came of the subsets of one share: what the scores of each method are held against."""

    subsets: Subsets
    kept: np.ndarray
    """[M, N] bool."""
    outcomes: Mapping[str, np.ndarray]
    """By kind, [M, F, T] float64."""
    agreement: Mapping[str, Correlations | None]
    """By kind, how far two fits of a subset agree; None of one fit."""


def prepare_lds(config: LdsConfig, store: Store, progress: Progress) -> PreparedLds:
    """As `story.prepare`, for the subsets of train that the scores are judged by, and the removals beside them."""
    splits = read_corpus(config.experiment, progress)
    numbers_left_out(config.keep_shares, len(splits.train))
    removals = dataclasses.replace(
        config.experiment, num_removed=(0, *config.removal_shares), seeds=config.removal_seeds
    )
    prepared = prepare_on(removals, splits, store, progress)
    supported, context = prepared.config, prepared.context
    config = dataclasses.replace(config, experiment=dataclasses.replace(config.experiment, methods=supported.methods))
    if removals.experiment is None:  # apart from the sweep of the same settings, whose table would show the subsets
        context = dataclasses.replace(context, experiment=f"{context.experiment}-lds")
    removals = dataclasses.replace(supported, methods=(*supported.methods, "random"))
    check_name_is_free(removals, context)
    return PreparedLds(config, dataclasses.replace(prepared, config=removals, context=context))


def another_study(prepared: PreparedLds, config: LdsConfig) -> PreparedLds:
    """The same experiment judged by other subsets of train, without removals of their own. Raises as `prepare_lds`."""
    numbers_left_out(config.keep_shares, len(prepared.context.splits.train))
    removals = dataclasses.replace(config, experiment=prepared.config.experiment, removal_shares=())
    return PreparedLds(removals, prepared.removals)


def joined(outcomes: Sequence[Outcome]) -> Outcome:
    """What several studies of one experiment leave: each failure once."""
    failed = {failure.fit_key: failure for outcome in outcomes for failure in outcome.failed}
    unscored = dict.fromkeys(each for outcome in outcomes for each in outcome.unscored)
    return Outcome(outcomes[0].experiment, list(failed.values()), tuple(unscored))


@despite_lost_engines
def run_lds(prepared: PreparedLds, engine: Engine, progress: Progress) -> Outcome:
    """Bring the store to hold the LDS of every method, and the trials of what removal by it does."""
    config, context = prepared.config, prepared.context
    planned, removing = plan_subsets(config, context), bool(config.removal_shares)
    run = _begin(prepared, planned, engine, progress)
    of_subsets = [trial for subsets in planned for trial in subsets.all_trials]
    of_removals = plan_trials(run.config, context, gather_evidence(run)) if removing else []
    fits = Fits(run)
    fits.begin([*of_subsets, *of_removals], base_models(run, keep_weights=not _all_scored(config, run)))
    fits.wait()  # methods are compared by the seconds that their scores take too: nothing runs beside them
    trained = _trained(planned, fits.failed)

    @functools.cache
    def studies() -> list[Study]:
        return [_study(subsets, run) for subsets in trained]

    unscored: list[Unscored] = []
    for method in config.experiment.methods:
        measure = functools.partial(_measure, method, run, config, studies)
        unscored += unless_it_fails(method, run, fits.failed, measure)
    if removing:
        _remove(run, fits, unscored)
    return Outcome(context.experiment, fits.failed, unscored)


def _begin(prepared: PreparedLds, planned: Sequence[Subsets], engine: Engine, progress: Progress) -> Run:
    """Record what is planned, subsets and removals, drop what an interrupted run left half-written, and say it."""
    config, context = prepared.config, prepared.context
    draws = [PlannedTrial(t.method, t.num_removed, t.seed) for subsets in planned for t in subsets.all_trials]
    asked = asked_trials(prepared.removals.config, context) if config.removal_shares else []
    record_plan(prepared.removals, progress, [*asked, *draws])
    run = Run(prepared.removals.config, context, engine, progress)
    discard_incomplete(run)
    shares = ", ".join(f"{100 * subsets.keep_share:g}%" for subsets in planned)
    progress.stage(
        f"experiment {context.experiment} in {context.store}: base models, and {config.num_subsets} subsets of "
        f"{shares} of train, {config.fits_per_subset} fits of each"
    )
    return run


def _all_scored(config: LdsConfig, run: Run) -> bool:
    """Whether nothing that is measured has yet to be scored."""
    methods = config.experiment.methods
    of_queries = [m for m in methods if METHODS[m].scores_queries]
    return all(is_scored("query_scores", method, run) for method in of_queries) and all(
        _is_aligned(method, run) for method in methods
    )


def _is_aligned(method: str, run: Run) -> bool:
    key = alignment_key(method, run.config, run.context)
    return run.context.store.has_whole("alignments", key, method, run.progress.stage)


def _trained(planned: Sequence[Subsets], failed: Sequence[FailedFit]) -> list[Subsets]:
    """The subsets that could be trained. Raises RunError where they are too few of a share."""
    given_up = {failure.fit_key for failure in failed}
    trained = [subsets.trained(given_up) for subsets in planned]
    fewest = min(map(len, trained))
    if fewest < MIN_SUBSETS:
        reasons = "; ".join(told(failed, ()))
        raise RunError(f"an LDS takes at least {MIN_SUBSETS} subsets, {fewest} could be trained: {reasons}")
    return trained


def _study(subsets: Subsets, run: Run) -> Study:
    """The outcomes of each kind, in the target of the experiment."""
    splits = run.context.splits
    names, groups = splits.group_names, splits.val.groups
    margins = torch.from_numpy(subsets.margins(run.context).astype(np.float64))
    of_queries = target_values(margins, run.config.alignment.query_target).numpy()
    flat = of_queries.reshape(-1, of_queries.shape[-1])
    of_groups = group_scores(flat, groups, len(names)).reshape(*of_queries.shape[:2], -1)
    of_alignment = of_groups @ run.base_group_weights(splits.val, groups, len(names)).weights
    outcomes = {"query": of_queries, "group": of_groups, "alignment": of_alignment[..., None]}
    has_pairs = of_queries.shape[1] > 1
    agreement = {kind: fit_correlations(values) if has_pairs else None for kind, values in outcomes.items()}
    return Study(subsets, subsets.kept(len(splits.train)), outcomes, agreement)


def _measure(method: str, run: Run, config: LdsConfig, studies: Callable[[], list[Study]]) -> None:
    """Store the LDS of one method over the subsets of each share."""
    run.progress.stage(f"attribution by {method}, for every val example, and group alignment")
    scores = _scores_by_kind(method, run)
    for study in studies():
        rows: list[pd.DataFrame] = []
        resampled: dict[str, list[float | None]] = {}  # None for what is not known: JSON has no NaN
        for kind, (of_kind, seconds) in scores.items():
            found = linear_datamodeling_scores(of_kind, study.kept, study.outcomes[kind].mean(axis=1))
            means = found.resampled_means.tolist()
            resampled[kind] = [None if np.isnan(mean) else round(mean, DIGITS) for mean in means]
            names = _target_names(kind, run)
            rows.append(_rows(kind, names, found, study, config).assign(scoring_seconds=seconds))
        _record(method, run, config, study, pd.concat(rows, ignore_index=True), resampled)


def _scores_by_kind(method: str, run: Run) -> dict[str, tuple[np.ndarray, float]]:
    """[N, T] scores of each kind that the method has, and the seconds that they took."""
    context = run.context
    scores: dict[str, tuple[np.ndarray, float]] = {}
    groups, names = context.splits.val.groups, context.splits.group_names
    if METHODS[method].scores_queries:
        matrix, seconds = query_scores(method, run)
        scores |= {"query": (matrix, seconds), "group": (group_scores(matrix, groups, len(names)), seconds)}
    if not _is_aligned(method, run):
        attribute_and_align(method, run)
    key = alignment_key(method, run.config, context)
    alignment = context.store.read("alignments", key, method)["alignment"].to_numpy()
    seconds = context.store.read_metadata("alignments", key, method)["configuration"]["scoring_seconds"]
    of_groups = None if "group" in scores else _stored_group_scores(method, run)
    if of_groups is not None:
        scores["group"] = (of_groups, seconds)
    return {**scores, "alignment": (alignment[:, None], seconds)}


def _stored_group_scores(method: str, run: Run) -> np.ndarray | None:
    """[N, G] scores of the groups that an alignment was made from; None where it was made from their weighed sum."""
    store, splits = run.context.store, run.context.splits
    key = scores_key(method, run.config, run.context)
    stored = store.read("scores", key, method)["query_set"].unique().astype(str).tolist()
    if stored != list(splits.group_names):
        return None
    return store.read_scores("scores", key, splits.train.example_ids, splits.group_names, method)


def _target_names(kind: str, run: Run) -> Sequence[str]:
    """What the targets of a kind are called; the one of `alignment` is its own mean."""
    splits = run.context.splits
    return {"query": splits.val.example_ids.tolist(), "group": splits.group_names, "alignment": ()}[kind]


def _rows(kind: str, names: Sequence[str], scores: Correlations, study: Study, config: LdsConfig) -> pd.DataFrame:
    """A row for each target, and one, whose target is `mean`, for the mean over them; beside each LDS its ceiling."""
    num_fits, pairs = config.fits_per_subset, study.agreement[kind]
    unknown = np.full(len(names) + 1, np.nan)
    between, low, high = (unknown, unknown, unknown) if pairs is None else _columns(pairs, len(names))
    lds, lds_low, lds_high = _columns(scores, len(names))
    return pd.DataFrame(
        {
            "kind": kind,
            "target": [*names, "mean"],
            "lds": lds,
            "lds_low": lds_low,
            "lds_high": lds_high,
            "fit_correlation": between,
            "fit_correlation_low": low,
            "fit_correlation_high": high,
            "ceiling": ceiling(between, num_fits),
            "ceiling_low": ceiling_bound(low, num_fits),
            "ceiling_high": ceiling_bound(high, num_fits),
            "num_subsets": len(study.subsets),
            "keep_share": study.subsets.keep_share,
            "subset_seeds": config.subset_seeds,
            "fits_per_subset": num_fits,
        }
    )


def _columns(found: Correlations, num_named: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value, lower and upper bound of the targets that have a name, and last of the mean."""
    columns = ((found.values, found.mean), (found.low, found.mean_low), (found.high, found.mean_high))
    values, low, high = (np.append(of_targets[:num_named], mean) for of_targets, mean in columns)
    return values, low, high


def _record(
    method: str,
    run: Run,
    config: LdsConfig,
    study: Study,
    rows: pd.DataFrame,
    resampled: Mapping[str, Sequence[float | None]],
) -> None:
    """Store the LDS of one method over the subsets of one share."""
    context, of_scores = run.context, scores_key(method, run.config, run.context)
    of_alignment = alignment_key(method, run.config, context)
    design = [str(study.subsets.keep_share), config.subset_seeds, str(config.fits_per_subset)]
    asked = [LDS_VERSION, context.experiment, of_scores, of_alignment, run.config.alignment.query_target, *design]
    key = content_hash(*asked, study.subsets.fit_keys)
    configuration: dict[str, Any] = {
        "data_hash": context.data_hash,
        "model_hash": context.model_hash,
        "scores_key": of_scores,
        "alignment_key": of_alignment,
        "query_target": run.config.alignment.query_target,
        "fits": study.subsets.fit_keys,
        "resampled_means": dict(resampled),
    }
    context.store.write("lds", key, rows.assign(lds_key=key, experiment=context.experiment), configuration, method)
    forget_superseded_lds(run, method, key)


def _remove(run: Run, fits: Fits, unscored: Sequence[Unscored]) -> None:
    """Train without what each alignment is lowest for."""
    evidence = gather_evidence(run)
    trials = plan_trials(run.config, run.context, evidence)
    tell_of_spared(run, trials)
    fits.begin(trials, by="removal by each method's alignment")
    fits.wait()
    forget_superseded(run, trials)
    settle_unselected(run.config, run.context, evidence, fits.failed, unscored)
