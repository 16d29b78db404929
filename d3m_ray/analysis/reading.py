"""The stored results as tidy frames, for notebooks and scripts: `d3m_ray.read_trials` and its like.

Each takes a store, by its folder, URI or `Store`, and gives one row per observation, with `experiment` and `method` as
columns. A result that several experiments or trials use stands once for each of them, so that a frame can be filtered,
grouped and merged by them as it is. Results that the record of no experiment names have no `experiment`. Texts are of
dtype str unless said otherwise; counts, labels and seeds are int64.

All raise StoreError where the store holds no experiment, none of the name, or no result of the method or split, and
where a file is damaged. A frame is empty where an experiment has no such result yet.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from d3m_ray.analysis.results import newest_trials
from d3m_ray.store.errors import StoreError
from d3m_ray.store.experiments import Experiment
from d3m_ray.store.store import Store

TRIAL = ["experiment", "method", "num_removed", "seed"]

AnyStore = str | Path | Store


def read_trials(store: AnyStore, experiment: str | None = None, split: str | None = None) -> pd.DataFrame:
    """Read the metrics of every trial: one row per trial, split and group.

    `experiment`, `dataset`, `model`, `method`, `objective` (erm is the plain one), `num_removed` (train examples),
    `seed`; `split` (val or test), `group` (an identity, an identity/label cell, all, worst or worst_cell);
    `num_examples`, and as float64 `accuracy` (0 to 1), `loss` (mean cross-entropy in nats), `fpr`, `fnr`, `auc`,
    `macro_f1` (0 to 1, NaN where undefined), `margin` (mean) and `soft_accuracy` (mean probability of the true label;
    both NaN in trials of an earlier version), `train_seconds`; `num_train` (examples trained on), `num_steps` (of the
    optimiser), `created_at` (datetime64, UTC); `trial_key`, `fit_key`. Sorted by experiment, method, num_removed, seed,
    split and group. Where a (method, num_removed, seed) of an experiment was run more than once, the newest counts.
    """
    rows = _trials(_opened(store), {"split": split}, experiment)
    first = ["experiment", "dataset", "model", "method", "objective", "num_removed", "seed", "split", "group"]
    last = ["trial_key", "fit_key"]
    measured = [name for name in rows.columns if name not in (*first, *last)]
    return rows.sort_values([*TRIAL, "split", "group"], ignore_index=True)[[*first, *measured, *last]]


def read_alignments(store: AnyStore, method: str | None = None, experiment: str | None = None) -> pd.DataFrame:
    """Read the group alignments: one row per method and train example, in the order of train.

    `experiment`, `method` (trak, trak_auto and so on), `example_id`, `group`, `label`, `alignment` (float64; low: it
    hurts the groups that the base models fail on), `alignment_key`. Alignments of two methods differ in scale.
    """
    rows = _of_experiments(_opened(store), "alignments", "alignment_key", method, experiment)
    return rows[["experiment", "method", "example_id", "group", "label", "alignment", "alignment_key"]]


def read_scores(store: AnyStore, method: str | None = None, experiment: str | None = None) -> pd.DataFrame:
    """Read the attribution scores: one row per method, train example and query set, in the order of train.

    `experiment`, `method`, `example_id`, `query_set` (a group, or a pseudo-group of Auto-D3M), `score` (float32: how
    much the example raises the target, what --target named, of the set's val examples), `scores_key`; all texts are
    of dtype category. Scores of two methods differ in scale. For a matrix of one experiment and method:
    `scores.pivot(index="example_id", columns="query_set", values="score")`.
    """
    rows = _of_experiments(_opened(store), "scores", "scores_key", method, experiment)
    rows = rows[["experiment", "method", "example_id", "query_set", "score", "scores_key"]]
    return rows.astype({"experiment": "category", "method": "category"})


def read_removals(store: AnyStore, method: str | None = None, experiment: str | None = None) -> pd.DataFrame:
    """Read what was removed: one row per trial of `read_trials` and train example that it did without.

    `experiment`, `method`, `num_removed` (of the whole trial), `seed`, `example_id`, `trial_key`. Merged with the train
    rows of `read_examples` on experiment and example_id, it has group, label and text.
    """
    opened = _opened(store)
    trials = _trials(opened, {"method": method}, experiment, ["trial_key"])
    trials = trials[trials["num_removed"] > 0]
    keys = dict(zip(trials["trial_key"], trials["method"], strict=True))
    rows = opened.read_all("removals", columns=["trial_key", "example_id", "method"], keys=keys)
    return trials.merge(rows, on=["trial_key", "method"])[[*TRIAL, "example_id", "trial_key"]]


def read_fits(
    store: AnyStore, method: str | None = None, experiment: str | None = None, split: str | None = None
) -> pd.DataFrame:
    """Read what the models answer: one row per trial of `read_trials` and val or test example.

    `experiment`, `method`, `objective`, `num_removed`, `seed`; `split`, `example_id`, `group`, `label`; `margin`
    (float32: logit of the true label less logsumexp of the others), `predicted` (label), `probability` (float32: of
    label 1; NaN where there are more than two labels); `fit_key`. Trials that share a model, as those of nothing
    removed, have the same rows and one `fit_key`. Every trial has them all: name an experiment, method or split.
    """
    opened = _opened(store)
    trials = _trials(opened, {"method": method}, experiment, ["objective", "fit_key"])
    rows = _found(opened, "fits", {"split": split}, keys=dict.fromkeys(trials["fit_key"]))
    of_trial = ["experiment", "method", "objective", "num_removed", "seed"]
    of_fit = [name for name in rows.columns if name != "fit_key"]
    return trials.merge(rows, on="fit_key")[[*of_trial, *of_fit, "fit_key"]]


def read_examples(store: AnyStore, experiment: str | None = None, split: str | None = None) -> pd.DataFrame:
    """Read the corpus: one row per experiment and example, in the order of train, val and test.

    `experiment`, `split`, `example_id` (unique within a split), `group`, `label` (an index), `label_name`, `text` (of
    train; missing in val and test, and where a sweep had --no-store-texts), `data_hash`.
    """
    opened = _opened(store)
    hashes = {name: record.configuration.get("data_hash") for name, record in _records(opened, experiment).items()}
    keys = {name: [value] if isinstance(value, str) else [] for name, value in hashes.items()}
    own = None if experiment is None else dict.fromkeys(keys[experiment])
    rows = _for_each_experiment(_found(opened, "examples", {"split": split}, keys=own), "data_hash", keys)
    return rows[["experiment", "split", "example_id", "group", "label", "label_name", "text", "data_hash"]]


def _opened(store: AnyStore) -> Store:
    return store if isinstance(store, Store) else Store(store)


def _trials(
    store: Store, wanted: Mapping[str, str | None], experiment: str | None, columns: Collection[str] | None = None
) -> pd.DataFrame:
    """The rows of the newest trials; with `columns`, one row per trial, sorted, of `TRIAL` and these alone."""
    needed = None if columns is None else list(dict.fromkeys([*TRIAL, "trial_key", "created_at", *columns]))
    rows = newest_trials(_found(store, "trials", wanted, columns=needed, experiment=experiment))
    if columns is None:
        return rows
    return rows.drop_duplicates(TRIAL)[[*TRIAL, *columns]].sort_values(TRIAL, ignore_index=True)


def _of_experiments(
    store: Store, table: str, key_column: str, method: str | None, experiment: str | None
) -> pd.DataFrame:
    """The rows of a table that experiments share, each experiment's own as its record names them."""
    keys = {name: record.keys.get(table, {}) for name, record in _records(store, experiment).items()}
    own = None if experiment is None else {key: of_method for of_method, key in keys[experiment].items()}
    rows = _found(store, table, {"method": method}, keys=own)
    return _for_each_experiment(rows, key_column, {name: list(of_one.values()) for name, of_one in keys.items()})


def _for_each_experiment(rows: pd.DataFrame, key_column: str, keys: Mapping[str, list[str]]) -> pd.DataFrame:
    """The rows of each experiment's keys with its name, one experiment after the other, then those of none."""
    parts = [rows[rows[key_column].isin(of_one)].assign(experiment=name) for name, of_one in keys.items()]
    of_none = ~rows[key_column].isin([key for of_one in keys.values() for key in of_one])
    parts.append(rows[of_none].assign(experiment=None))
    return pd.concat(parts, ignore_index=True).astype({"experiment": "str"})


def _found(
    store: Store,
    table: str,
    wanted: Mapping[str, str | None],
    columns: list[str] | None = None,
    keys: Mapping[str, str | None] | None = None,
    experiment: str | None = None,
) -> pd.DataFrame:
    """The rows of a table, of one experiment, that have the values wanted. Raises StoreError where no row has one."""
    within = [] if experiment is None else [("experiment", "==", experiment)]
    filters = [*within, *((name, "==", value) for name, value in wanted.items() if value is not None)]
    rows = store.read_all(table, columns=columns, filters=filters or None, keys=keys)
    if rows.empty:
        known = store.read_all(table, columns=list(wanted), filters=within or None, keys=keys)
        if known.empty:
            _records(store, experiment)
        for name, value in wanted.items():
            if value is not None and value not in set(known[name]):
                has = ", ".join(sorted(set(known[name]))) or "none yet"
                raise StoreError(f"{store} holds no {table} of {name} {value!r}; it has {has}")
    return rows


def _records(store: Store, experiment: str | None) -> dict[str, Experiment]:
    """Every record, or that of one experiment. Raises StoreError where there is none."""
    records = store.read_experiments()
    if not records:
        raise store.without_experiment()
    if experiment is None:
        return records
    if experiment not in records:
        raise StoreError(f"{store} holds no experiment {experiment!r}; it has {', '.join(records)}")
    return {experiment: records[experiment]}
