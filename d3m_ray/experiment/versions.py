"""One experiment, one version of what trains and scores: trials of two are never put in one row, nor counted as one."""

import pandas as pd

from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.keys import NOTHING
from d3m_ray.experiment.plan import alignment_names, asked_trials, shared_keys
from d3m_ray.selection.arms import ARMS
from d3m_ray.trials.trial import TrialContext, plan_trial
from d3m_ray.wording import counted

Place = tuple[str, int | None, int]


def check_versions(config: ExperimentConfig, context: TrialContext) -> None:
    """Refuse to add trials of another version to an experiment that keeps those of the version that it began with.

    Its settings are those of its record. Where the keys of its base models, or of an alignment, are others none the
    less, the version of training, or of a method, has changed since; trials that are asked for are then made again in
    the place of older ones, and none may be left. Raises InputError where some would be.
    """
    begun = context.store.read_experiment(context.experiment)
    if begun is None:
        return
    now = shared_keys(config, context)
    changed = {
        table: {name for name, key in now[table].items() if begun.keys.get(table, {}).get(name, key) != key}
        for table in ("fits", "alignments")
    }
    if not any(changed.values()):
        return
    of_alignments = {name for name in alignment_names(config) if name in changed["alignments"]}
    asked = {(trial.method, trial.num_removed, trial.seed) for trial in asked_trials(config, context)}
    left = [
        place
        for place in _stored_places(context)
        if place not in asked and (changed["fits"] or ARMS[place[0]].alignment in of_alignments)
    ]
    if left:
        what = "training" if changed["fits"] else ", ".join(sorted(of_alignments))
        seeds = " ".join(map(str, sorted({*config.seeds, *(seed for _, _, seed in left)})))
        raise InputError(
            f"an experiment's trials are of one version of what trains and scores them; {context.experiment!r} was "
            f"begun under another version of {what}, and {counted(len(left), 'stored trial')} would stay: ask for "
            f"their methods, numbers and seeds too (--seeds {seeds}), and they are trained again, or give this one "
            "another --experiment"
        )


def trained_otherwise(trials: pd.DataFrame, context: TrialContext) -> set[str]:
    """The keys of those stored trials whose fits this version, or these settings, would train to other weights.

    `trials` has `trial_key`, `method`, `num_removed` and `seed`. One whose removed examples are not known is none.
    """
    methods = dict(zip(trials["trial_key"], trials["method"], strict=True))
    rows = context.store.read_all("removals", ["trial_key", "example_id"], keys=methods, say=lambda line: None)
    removed = {key: ids.to_numpy() for key, ids in rows.groupby("trial_key")["example_id"]}
    places = pd.Index(context.splits.train.example_ids)
    found = set()
    for key, method, number, seed in trials[["trial_key", "method", "num_removed", "seed"]].itertuples(index=False):
        if number == len(removed.get(key, ())):
            positions = places.get_indexer(removed[key]) if number else NOTHING
            if plan_trial(context, method, positions, int(seed), ARMS[method].recipe).trial_key != key:
                found.add(key)
    return found


def _stored_places(context: TrialContext) -> set[Place]:
    """The method, the number removed (None where the arm decides it) and the seed of each stored trial of an arm."""
    columns = ["method", "num_removed", "seed"]
    ours = [("experiment", "==", context.experiment)]
    rows = context.store.read_all("trials", columns=columns, filters=ours, say=lambda line: None).drop_duplicates()
    return {
        (str(method), None if ARMS[method].chooses_number else int(number), int(seed))
        for method, number, seed in rows[columns].itertuples(index=False, name=None)
        if method in ARMS
    }
