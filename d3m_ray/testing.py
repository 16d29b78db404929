"""Hold a method, an arm, a recipe or a corpus to what the engine relies on, in one line of a plug-in's own tests.

    from d3m_ray.testing import check_method

    def test_overlap():
        check_method("overlap")

Each function loads the registered plug-ins, makes a tiny model and examples up, without a network, and raises
AssertionError with what does not hold, where, and by how much; InputError where nothing is registered under the name.

Shapes: N train examples, Q queries, G groups, L labels.
"""

import contextlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from d3m_ray.attribution.inputs import AttributionInputs
from d3m_ray.attribution.registry import METHODS, Method
from d3m_ray.data.checks import DataError, check_splits
from d3m_ray.data.corpora import CORPORA
from d3m_ray.data.planted import Planted
from d3m_ray.entry_points import load_plugins
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.made_up import (
    NUM_EVIDENCE,
    NUM_GROUPS,
    NUM_QUERIES,
    NUM_TRAIN,
    CopyingPool,
    global_randomness,
    made_evidence,
    made_fit,
    made_inputs,
    made_tokens,
    other_where_removed,
)
from d3m_ray.pool import LocalPool
from d3m_ray.selection.arms import ARMS, Arm, Evidence
from d3m_ray.training.fine_tuning import Fit
from d3m_ray.training.recipes import FitInputs
from d3m_ray.training.registry import RECIPES, Recipe

ROUNDING = 1e-5  # of the largest score: what float64 sums in another order, kept as float32, may differ by
WEIGHTS = np.array([0.5, 0.3, 0.2])  # of the groups
SMALL_LIMITS = {"d3m_ray.attribution.shards.MIN_SHARD_TOKENS": 60, "d3m_ray.attribution.forward.FORWARD_TOKENS": 30}

Scores = Mapping[str, np.ndarray]
"""By what a column stands for: `group` [N, G], and `query` [N, Q] or, where the cost is per target, `weighed sum`."""


def check_method(
    name: str, settings: Any = None, *, any_order: bool = True, limits: Mapping[str, int] | None = None
) -> None:
    """Raise AssertionError where an attribution method breaks what the engine relies on.

    Scores are finite float32 [N, G] and [N, Q], not all equal, and a group's are the mean of its queries'. Smaller
    shards, another order of train and fewer queries change them by rounding alone; a second run, whatever the global
    random state, and pools of other sizes, whose steps see copies in another order, not by a bit. The inputs stay as
    they were. What says that it reads no query is the same for other queries.

    `settings` are the method's own, its defaults unless given. `any_order` is False for a method that draws a number
    for each position in train. `limits` are its module-level constants that bound a shard or a batch, by dotted name
    ("my_package.overlap.BATCH_TOKENS"), each with a small value to try.
    """
    method: Method = _registered(name, METHODS, "an attribution method")
    if settings is None:
        settings = default_settings(method)
    for num_labels in (3, 2):
        subject = _Subject(method, settings, made_inputs(num_labels))
        before = pickle.dumps(subject.inputs)
        _check_shapes(subject)
        _check_sums(subject)
        subject.hold(pickle.dumps(subject.inputs) == before, "changes the inputs that it is given: copy them first")
    _check_execution(subject, {**SMALL_LIMITS, **(limits or {})})
    if method.scores_queries and any_order:  # what replays a training run takes the order of that run
        _check_order(subject)
    if method.reads_queries:
        _check_fewer_queries(subject)
    else:
        _check_reads_no_query(subject)


def check_arm(name: str) -> None:
    """Raise AssertionError where an arm does not choose as the engine relies on; it is given nothing of test.

    A selection is [M] different positions of the N train examples, ascending, as many as asked for unless the rule
    itself decides; equal inputs give equal positions, whatever the global random state; the evidence stays as it was.
    """
    arm: Arm = _registered(name, ARMS, "an arm")
    if arm.best_of is not None:
        raise InputError(f"{name} removes what {arm.best_of} removes, of its best number: check that arm instead")
    for num_labels in (2, 3):
        evidence = made_evidence(arm, num_labels)
        before = pickle.dumps(evidence)
        for num_removed in (0,) if arm.chooses_number else (1, 7, NUM_EVIDENCE // 2):
            for seed in (0, 1):
                what = f"the arm {name}, asked for {num_removed} of {NUM_EVIDENCE} train examples under seed {seed}"
                first, again = (_selected(what, arm, evidence, num_removed, seed, state) for state in (0, 1))
                _hold(np.array_equal(first, again), f"{what}, chooses others the second time: draw by the seed alone")
                if not arm.chooses_number:
                    _hold(len(first) == num_removed, f"{what}, chooses {len(first)}")
        _hold(pickle.dumps(evidence) == before, f"the arm {name} changes the evidence that it is given: copy it first")


def check_recipe(name: str, settings: Any = None) -> None:
    """Raise AssertionError where a recipe does not train as the engine relies on.

    A seed decides the weights to the bit, whatever the global random state, and they are finite. What is removed has no
    say: with other words, labels and groups in its place the weights are the same. Removing nothing is no change: then
    they are the same under either --pairing. The inputs stay as they were. `settings` are the recipe's own, its
    defaults unless given.
    """
    recipe: Recipe = _registered(name, RECIPES, "a recipe")
    recipe = replace(recipe, settings=recipe.settings if settings is None else settings)
    for num_labels in (2, 3):
        inputs, removing = made_fit(recipe, num_labels), made_fit(recipe, num_labels, num_removed=5)
        for asked, what in ((inputs, "all of train"), (removing, "train without some")):
            before = pickle.dumps((asked.train, asked.val, asked.kept, asked.pretrained.weights))
            first = _trained(name, recipe, asked)
            after = pickle.dumps((asked.train, asked.val, asked.kept, asked.pretrained.weights))
            _hold(before == after, f"the recipe {name} changes the inputs that it is given: copy them first")
            _hold(np.isfinite(first).all(), f"the recipe {name} leaves finite weights; some of {what} are not")
            rule = f"the recipe {name} trains {what} to other weights the second time: draw by the seed alone"
            _hold(np.array_equal(first, _trained(name, recipe, asked, state=1)), rule)
        found = _trained(name, recipe, replace(removing, train=other_where_removed(removing)))
        rule = f"the recipe {name} looks at what is removed: read of `inputs.train` what `inputs.kept` names alone"
        _hold(np.array_equal(found, _trained(name, recipe, removing)), rule)
        independent = replace(inputs.config, pairing="independent")
        found = _trained(name, recipe, replace(inputs, config=independent))
        rule = f"the recipe {name} trains all of train to other weights under --pairing independent, which says nothing"
        _hold(np.array_equal(found, _trained(name, recipe, inputs)), f"{rule} where nothing is removed")


def check_corpus(name: str, folder: str | Path | None = None, options: Any = None) -> None:
    """Raise AssertionError where a corpus is not read as the engine relies on.

    Its splits keep the rules of every corpus (disjoint texts, one vocabulary of groups, every label in train), and are
    the same the second time, whatever the global random state. `folder` is what --data would name; `options` are the
    corpus's own, its defaults unless given.
    """
    corpus = _registered(name, CORPORA, "a corpus")
    options = corpus.options() if options is None else options
    source = None if folder is None else Path(folder)
    read = []
    for state in (0, 1):
        try:
            with global_randomness(state):
                splits = check_splits(corpus.load(options, source))
        except (DataError, ValueError) as error:
            raise AssertionError(f"the corpus {name} is not read: {error}") from error
        read.append(splits.content_hash())
    _hold(read[0] == read[1], f"the corpus {name} is another the second time: draw by a seed of its options alone")


def default_settings(method: Method) -> Any:
    """What a method is run with unless told otherwise; None where it has no settings."""
    if method.settings is None:
        return None
    own = method.defaults is not None
    return method.defaults if own else getattr(ExperimentConfig(corpus=Planted()), method.settings)


# --- how it is checked ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Subject:
    """A method, and what it is tried on."""

    method: Method
    settings: Any
    inputs: AttributionInputs

    @cached_property
    def scores(self) -> Scores:
        """As the engine would have them."""
        return self.score(self.inputs)

    def score(self, inputs: AttributionInputs, num_workers: int | None = None) -> Scores:
        """The scores of other inputs, or by a copying pool of so many workers."""
        scorers = self.method.load()

        def pool() -> LocalPool:
            return LocalPool() if num_workers is None else CopyingPool(num_workers)

        of_groups = scorers.score_groups(inputs, self.settings, pool())
        if scorers.score_queries is not None:
            return {"group": of_groups, "query": scorers.score_queries(inputs, self.settings, pool())}
        assert scorers.score_alignment is not None
        return {"group": of_groups, "weighed sum": scorers.score_alignment(inputs, self.settings, pool(), WEIGHTS)}

    def hold(self, holds: bool, rule: str) -> None:
        _hold(holds, f"the method {self.method.name} {rule}")

    def hold_same(self, found: Scores, expected: Scores, when: str, tolerance: float = ROUNDING) -> None:
        for kind, scores in expected.items():
            allowed = tolerance * float(np.abs(scores).max())
            apart = np.abs(found[kind].astype(np.float64) - scores)
            if np.all(apart <= allowed):
                continue
            row, column = np.unravel_index(int(np.argmax(np.nan_to_num(apart, nan=np.inf))), apart.shape)
            raise AssertionError(
                f"the method {self.method.name} gives other scores {when}: train example {row}, {kind} {column}: "
                f"{found[kind][row, column]:.8g}, before {scores[row, column]:.8g}; they may differ by {allowed:.2g}"
            )


def _check_shapes(subject: _Subject) -> None:
    num_columns = {"group": NUM_GROUPS, "query": NUM_QUERIES, "weighed sum": 1}
    for kind, scores in subject.scores.items():
        expected = (NUM_TRAIN, num_columns[kind])
        subject.hold(
            scores.shape == expected and scores.dtype == np.float32,
            f"gives float32 scores {expected}, a column for each {kind}; received {scores.dtype} {scores.shape}",
        )
        num_lost = int((~np.isfinite(scores)).sum())
        subject.hold(num_lost == 0, f"gives finite scores; {num_lost} of those of each {kind} are not")
        subject.hold(np.ptp(scores) > 0, f"tells train examples apart; all scores of each {kind} are {scores.flat[0]}")


def _check_sums(subject: _Subject) -> None:
    """A set of queries scores as their mean, or a weighed sum of groups as the sum of theirs."""
    of_groups, groups = subject.scores["group"].astype(np.float64), subject.inputs.queries.groups
    if (of_queries := subject.scores.get("query")) is not None:
        means = [of_queries[:, groups == group].mean(axis=1, dtype=np.float64) for group in range(NUM_GROUPS)]
        when = "for a group than the mean of those of its queries"
        subject.hold_same({"group": of_groups}, {"group": np.stack(means, axis=1)}, when)
        return
    when = "for the weighed sum of the groups than the weighed sum of theirs"
    subject.hold_same(subject.scores, {"weighed sum": (of_groups @ WEIGHTS)[:, None]}, when, 10 * ROUNDING)


def _check_execution(subject: _Subject, limits: Mapping[str, int]) -> None:
    """Smaller shards and batches change rounding alone; a second run and other pools, over several shards, no bit."""
    with contextlib.ExitStack() as small:
        for place, value in limits.items():
            small.enter_context(mock.patch(place, value))
        cut = subject.score(subject.inputs)
        subject.hold_same(cut, subject.scores, "in smaller shards and batches")
        with global_randomness(1):
            again = subject.score(subject.inputs)
        subject.hold_same(again, cut, "the second time: draw by a seed of its settings alone", 0)
        for num_workers in (2, 7):
            when = f"in a pool of {num_workers} workers, each of which sees copies and only some of the shards"
            subject.hold_same(subject.score(subject.inputs, num_workers), cut, when, 0)


def _check_order(subject: _Subject) -> None:
    order = np.random.default_rng(0).permutation(NUM_TRAIN)
    found = subject.score(replace(subject.inputs, train=subject.inputs.train.take(order)))
    back = {kind: scores[np.argsort(order)] for kind, scores in found.items()}
    subject.hold_same(back, subject.scores, "where the train examples come in another order")


def _check_fewer_queries(subject: _Subject) -> None:
    if "query" not in subject.scores:
        return
    queries = subject.inputs.queries
    by_length = np.argsort(queries.lengths, kind="stable")
    # The shortest of each group: what was taken over all queries differs.
    some = np.sort([by_length[queries.groups[by_length] == group][0] for group in range(NUM_GROUPS)])
    found = subject.score(replace(subject.inputs, queries=queries.take(some)))["query"]
    expected = {"query": subject.scores["query"][:, some]}
    subject.hold_same({"query": found}, expected, "for a query that is asked with fewer others")


def _check_reads_no_query(subject: _Subject) -> None:
    other = replace(made_tokens("val", NUM_QUERIES, 2, seed=1), groups=subject.inputs.queries.groups)
    found = subject.score(replace(subject.inputs, queries=other, query_target="probability"))
    subject.hold_same(found, subject.scores, "for other queries, and says that it reads none", 0)


def _selected(what: str, arm: Arm, evidence: Evidence, num_removed: int, seed: int, state: int) -> np.ndarray:
    """What an arm selects, checked by itself."""
    try:
        with global_randomness(state):
            found = arm.select(evidence, num_removed, seed)
    except (ValueError, RunError) as error:  # a plug-in's is checked where it is registered, too
        raise AssertionError(f"{what}: {error}") from error
    _hold(
        isinstance(found, np.ndarray) and found.ndim == 1 and found.dtype.kind == "i",
        f"{what}, gives a list of positions, [M] whole numbers; received {found!r}",
    )
    is_ascending = bool((np.diff(found) > 0).all())
    _hold(is_ascending, f"{what}, gives different positions in ascending order; received {found.tolist()}")
    inside = not len(found) or 0 <= found[0] <= found[-1] < len(evidence)
    _hold(inside, f"{what}, gives positions from 0 to {len(evidence) - 1}; received {found.tolist()}")
    return found


def _trained(name: str, recipe: Recipe, inputs: FitInputs, state: int = 0) -> np.ndarray:
    """[weights] of the model that the recipe leaves."""
    try:
        with global_randomness(state):
            fit = recipe.fit(inputs)
    except RunError as error:  # checked where it is registered, too
        raise AssertionError(str(error)) from error
    _hold(isinstance(fit, Fit) and fit.num_steps > 0, f"the recipe {name} gives the Fit of its steps, received {fit!r}")
    return np.concatenate([weights.detach().numpy().ravel() for weights in inputs.model.state_dict().values()])


def _registered(name: str, registry: Mapping[str, Any], kind: str) -> Any:
    """What is registered under the name, once the plug-ins are loaded."""
    told = load_plugins()
    if name not in registry:
        raise InputError("; ".join([f"{kind} is registered under its name, received {name!r}, which none is", *told]))
    return registry[name]


def _hold(holds: bool, rule: str) -> None:
    if not holds:
        raise AssertionError(rule)
