"""All that the store holds of one experiment: each table read once, when it is first asked for.

Shapes: N train examples, Q test examples, S query sets.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import pandas as pd

from d3m_ray.records import FIRST_DRAW
from d3m_ray.store.errors import DamagedError, StoreError
from d3m_ray.store.experiments import Experiment
from d3m_ray.store.store import Store

TRIAL = ["method", "num_removed", "seed"]
PLAIN_OBJECTIVE = "erm"
_OF_THE_LOSS = "log likelihood (minus the loss)"
EXPLAINED = {"probability": "probability of the true label", "loss": _OF_THE_LOSS, "worst_loss": _OF_THE_LOSS}
FITS_AT_ONCE = 200  # so many are read at a time: one bit an example is kept of each

Tell = Callable[[str], None]

Given = ParamSpec("Given")
Made = TypeVar("Made")


def once(make: Callable[Given, Made]) -> Callable[Given, Made]:
    """Remember what a function made of the results given last: the files and the page each ask for it.

    A frame is handed out as a copy of its own, which costs nothing until it is written to.
    """
    remembered = cast(Callable[Given, Made], lru_cache(maxsize=4)(make))

    @wraps(make)
    def made_once(*arguments: Given.args, **named: Given.kwargs) -> Made:
        made = remembered(*arguments, **named)
        return made.copy(deep=False) if isinstance(made, pd.DataFrame) else made

    return made_once


@dataclass(frozen=True, eq=False)
class Answers:
    """Which test examples each fit answers right."""

    examples: pd.DataFrame
    """Q rows: `example_id`, `group`, `label`; a post of two groups stands twice."""
    is_correct: Mapping[str, np.ndarray]
    """[Q] bool by fit key."""


@dataclass(frozen=True, eq=False)
class Scores:
    """The attribution scores of one method."""

    example_ids: np.ndarray
    """[N] str, in train order."""
    query_sets: tuple[str, ...]
    """S names: groups, or the pseudo-groups of Auto-D3M."""
    values: np.ndarray
    """[N, S] float32."""


@dataclass(frozen=True, eq=False)
class Results:
    """One experiment. Frames are empty, and mappings lack a name, where the store lacks the result."""

    store: Store
    record: Experiment
    all_trials: pd.DataFrame
    """The rows of `trials` of val and test, the newest of each (method, num_removed, seed)."""
    say: Tell | None = None
    """Told of damaged files, which are left out; without it, each is a StoreError."""

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def configuration(self) -> Mapping[str, Any]:
        return self.record.configuration

    @property
    def target(self) -> str:
        """What removal was to raise: a name of --target. Records of earlier versions have none: it was the margin."""
        alignment = self.configuration.get("alignment")
        return str(alignment.get("target", "margin")) if isinstance(alignment, Mapping) else "margin"

    @property
    def explained(self) -> str:
        """What of val examples the scores raise where they are positive, in words."""
        return EXPLAINED.get(self.target, self.target)

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(self.configuration.get("label_names", ()))

    @cached_property
    def trials(self) -> pd.DataFrame:
        """The test rows, sorted by method, num_removed, seed and group."""
        return self.trials_of("test")

    def trials_of(self, split: str) -> pd.DataFrame:
        """The rows of one split, sorted by method, num_removed, seed and group; none of the subsets of an LDS."""
        rows = self.all_trials[(self.all_trials["split"] == split) & ~is_draw(self.all_trials)]
        return rows.sort_values([*TRIAL, "group"], ignore_index=True)

    @cached_property
    def fits(self) -> pd.DataFrame:
        """One row per trial: `TRIAL`, its keys, objective, train_seconds, num_train, num_steps and created_at."""
        columns = [*TRIAL, "trial_key", "fit_key", "objective", "train_seconds", "num_train", "num_steps", "created_at"]
        return self.all_trials.drop_duplicates(TRIAL)[columns].sort_values(TRIAL, ignore_index=True)

    @cached_property
    def arm_fits(self) -> pd.DataFrame:
        """The rows of `fits` without the subsets of an LDS, which are no arm."""
        return self.fits[~is_draw(self.fits)].reset_index(drop=True)

    @cached_property
    def base_fits(self) -> dict[int, str]:
        """By seed, the fit key of the model that was trained on everything."""
        rows = self.fits[(self.fits["num_removed"] == 0) & (self.fits["objective"] == PLAIN_OBJECTIVE)]
        return dict(zip(rows["seed"].tolist(), rows["fit_key"], strict=True))

    @cached_property
    def answers(self) -> Answers | None:
        """What the fits of the trials answer on test, None where none of them is stored."""
        return _read_answers(self.store, sorted(set(self.arm_fits["fit_key"])), self.say)

    @cached_property
    def alignments(self) -> dict[str, pd.DataFrame]:
        """By name, rows in train order: `example_id`, `group`, `label`, `alignment`."""
        columns = ["example_id", "group", "label", "alignment"]
        return {name: frame[columns] for name, frame in self._shared("alignments").items()}

    @cached_property
    def scores(self) -> dict[str, Scores]:
        """By the name of the alignment that they were made for."""
        return {name: _as_matrix(frame) for name, frame in self._shared("scores").items()}

    @cached_property
    def scores_metadata(self) -> dict[str, dict[str, Any]]:
        """By name, the configuration with which its scores were made: `coverage`, `scoring_seconds` and so on."""
        stored = {name: key for name, key in self._keys("scores").items() if self.store.has("scores", key, name)}
        return {name: made for name, key in stored.items() if (made := self.made_with("scores", key, name))}

    def made_with(self, table: str, key: str, method: str) -> dict[str, Any]:
        """The configuration with which a stored result was made; empty where its file is damaged, which is told."""
        try:
            made: dict[str, Any] = self.store.read_metadata(table, key, method)["configuration"]
        except DamagedError as error:
            if self.say is None:
                raise
            self.say(str(error))
            return {}
        return made

    def removals_of(self, method: str) -> pd.DataFrame:
        """One row per trial of a method and example that it removed: `TRIAL` and `example_id`."""
        trials = self.arm_fits[(self.arm_fits["num_removed"] > 0) & (self.arm_fits["method"] == method)]
        keys = dict.fromkeys(trials["trial_key"], method)
        rows = self.store.read_all("removals", columns=["trial_key", "example_id"], keys=keys, say=self.say)
        return trials[[*TRIAL, "trial_key"]].merge(rows, on="trial_key").drop(columns="trial_key")

    @cached_property
    def train_cells(self) -> pd.DataFrame:
        """`group` and `label` of train by example_id; empty where neither the corpus nor an alignment is stored."""
        known = [self.examples[self.examples["split"] == "train"], *self.alignments.values()]
        rows = next((frame for frame in known if len(frame)), known[0])
        return rows.set_index("example_id")[["group", "label"]]

    @cached_property
    def removed_cells(self) -> pd.DataFrame:
        """How many examples of each cell each trial removed: `TRIAL`, `group`, `label`, `num_removed_of_cell`.

        Cells of which a trial removed none have no row. Read in parts: ten thousand trials remove tens of millions.
        """
        trials = self.arm_fits[self.arm_fits["num_removed"] > 0].set_index("trial_key")
        methods = dict(zip(trials.index, trials["method"], strict=True))
        names = ["trial_key", "group", "label"]
        counts = [pd.Series(dtype="int64", index=pd.MultiIndex.from_arrays([[]] * 3, names=names))]
        for start in range(0, len(methods), FITS_AT_ONCE):
            keys = dict(list(methods.items())[start : start + FITS_AT_ONCE])
            rows = self.store.read_all("removals", columns=["trial_key", "example_id"], keys=keys, say=self.say)
            cells = rows.join(self.train_cells, on="example_id", how="inner")
            counts.append(cells.groupby(names).size())
        found = pd.concat(counts).rename("num_removed_of_cell").reset_index()
        return trials[TRIAL].merge(found, left_index=True, right_on="trial_key").drop(columns="trial_key")

    @cached_property
    def examples(self) -> pd.DataFrame:
        """The corpus: `split`, `example_id`, `group`, `label`, `label_name`; `text` of train where it is stored."""
        key = self.configuration.get("data_hash")
        keys = {} if key is None else {key: None}
        return self.store.read_all("examples", keys=keys, say=self.say).drop(columns="data_hash")

    @cached_property
    def failures(self) -> pd.DataFrame:
        """The trials that were given up: `TRIAL`, `error`, `traceback`, `created_at`."""
        ours = [("experiment", "==", self.name)]
        return self.store.read_all("failures", filters=ours, say=self.say)[[*TRIAL, "error", "traceback", "created_at"]]

    @cached_property
    def lds(self) -> pd.DataFrame:
        """The rows of `lds`; empty but for an experiment of sweeps/lds.py. Earlier ones are of one fit of each half.

        Without those of an alignment that was made again since, as by a later version of a method.
        """
        rows = self.store.read_all("lds", filters=[("experiment", "==", self.name)], say=self.say)
        rows = rows[~rows["lds_key"].isin(self._outdated_lds(rows))]
        earlier = {"keep_share": 0.5, "subset_seeds": "own", "fits_per_subset": 1}
        return rows.fillna(earlier).astype({"fits_per_subset": "int64"})

    def versions(self) -> dict[str, str]:
        """By path, the state of each stored file that the tables of this experiment are read from, but its trials."""
        removing = self.fits[self.fits["num_removed"] > 0]
        keys: dict[str, dict[str, str | None]] = {
            "fits": dict.fromkeys(self.fits["fit_key"]),
            "removals": dict(zip(removing["trial_key"], removing["method"], strict=True)),
            "examples": dict.fromkeys([self.configuration["data_hash"]] if "data_hash" in self.configuration else []),
            **{table: {key: name for name, key in self._keys(table).items()} for table in ("alignments", "scores")},
        }
        return {path: state for table, of in keys.items() for path, state in self.store.versions(table, of).items()}

    def _outdated_lds(self, rows: pd.DataFrame) -> set[str]:
        """The keys of the LDS that are not of the alignments in the record."""
        outdated, alignments = set(), self._keys("alignments")
        for key, method in rows[["lds_key", "method"]].drop_duplicates().itertuples(index=False, name=None):
            made_with = self.made_with("lds", key, method)
            if method in alignments and made_with.get("alignment_key", alignments[method]) != alignments[method]:
                outdated.add(str(key))
        return outdated

    def _keys(self, table: str) -> Mapping[str, str]:
        return self.record.keys.get(table, {})

    def _shared(self, table: str) -> dict[str, pd.DataFrame]:
        """By name, the results of a table that the experiment shares with others, those that are stored and whole."""
        found = {}
        for name, key in self._keys(table).items():
            frame = self.store.read_all(table, keys={key: name}, say=self.say)
            if len(frame):
                found[name] = frame.reset_index(drop=True)
        return found


def read_results(store: Store, names: Collection[str] = (), say: Tell | None = None) -> list[Results]:
    """Every experiment of a store, or those named, in the order of their names.

    One that has trials and no record, as of a damaged one, is among them. Raises StoreError where the store holds no
    experiment, or none of a name.
    """
    records = store.read_experiments(say)
    trials = store.read_all("trials", say=say)
    for name, rows in trials[~trials["experiment"].isin(list(records))].groupby("experiment"):
        first = rows.iloc[0]
        records[str(name)] = Experiment(str(name), {"dataset": first["dataset"], "model": first["model"]}, ())
    if not records:
        raise store.without_experiment()
    unknown = sorted(set(names) - set(records))
    if unknown:
        raise StoreError(f"{store} holds no experiment {unknown[0]!r}; it has {', '.join(sorted(records))}")
    of_experiment = dict(iter(trials.groupby("experiment")))
    return [
        Results(store, records[name], newest_trials(of_experiment.get(name, trials.iloc[:0])), say)
        for name in sorted(names or records)
    ]


def newest_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of an (experiment, method, num_removed, seed) that was run again since."""
    arm = ["experiment", *TRIAL]
    run = trials.drop_duplicates([*arm, "trial_key"])
    newest = run.sort_values("created_at", kind="stable").drop_duplicates(arm, keep="last")
    if len(newest) == len(run):
        return trials
    return trials.merge(newest[[*arm, "trial_key"]], on=[*arm, "trial_key"])


def is_draw(trials: pd.DataFrame) -> pd.Series:
    """Of each row of a table of trials, whether it is of a subset of an LDS: removal at random, which is no arm.

    Their seeds count from `FIRST_DRAW` and are of nothing else; where an arm or a base model has such a seed too, as in
    a sweep of an earlier version, it is the seed of arms.
    """
    is_random = (trials["method"] == "random") & (trials["num_removed"] > 0)
    of_arms = trials.loc[~is_random, "seed"].unique()
    return is_random & (trials["seed"] >= FIRST_DRAW) & ~trials["seed"].isin(of_arms)


def _read_answers(store: Store, fit_keys: list[str], say: Tell | None) -> Answers | None:
    examples: pd.DataFrame | None = None
    is_correct: dict[str, np.ndarray] = {}
    columns = ["fit_key", "example_id", "group", "label", "predicted"]
    for start in range(0, len(fit_keys), FITS_AT_ONCE):
        keys = dict.fromkeys(fit_keys[start : start + FITS_AT_ONCE])
        rows = store.read_all("fits", columns=columns, filters=[("split", "==", "test")], say=say, keys=keys)
        for key, fit in rows.groupby("fit_key", sort=False):
            of_fit = fit[["example_id", "group", "label"]].reset_index(drop=True)
            examples = of_fit if examples is None else examples
            if not of_fit.equals(examples):
                raise StoreError(f"{store} holds fits of one experiment on different test examples; {key} is one")
            is_correct[str(key)] = (fit["predicted"] == fit["label"]).to_numpy()
    return None if examples is None else Answers(examples, is_correct)


def _as_matrix(rows: pd.DataFrame) -> Scores:
    """The long rows as a matrix: they go through the examples, and through the query sets within each."""
    query_sets = rows["query_set"].drop_duplicates().astype(str)
    shape = (-1, len(query_sets))
    ids = rows["example_id"].to_numpy().reshape(shape)[:, 0]
    return Scores(ids.astype(str), tuple(query_sets), rows["score"].to_numpy().reshape(shape))
