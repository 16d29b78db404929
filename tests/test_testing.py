"""The suite that plug-ins are held to lets honest ones pass and catches each kind of wrong one, in words."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

import d3m_ray as d3m
from d3m_ray.attribution.registry import METHODS, Method
from d3m_ray.attribution.scorers import Scorers
from d3m_ray.attribution.shards import make_shards
from d3m_ray.selection.arms import ARMS, Arm
from d3m_ray.testing import check_arm, check_corpus, check_method, check_recipe
from d3m_ray.training.registry import RECIPES

pytestmark = pytest.mark.usefixtures("own_registries")


# --- methods ----------------------------------------------------------------------------------------------------------


def products(of_sets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.outer(lengths, of_sets)


def of_sets(inputs, together=np.mean) -> np.ndarray:
    """[query sets] the mean length of each set's queries."""
    return np.array([together(inputs.queries.lengths[members]) for members in inputs.query_sets])


def by_shards(inputs, pool, step, shared) -> np.ndarray:
    shards = make_shards(inputs.train)
    lengths = [inputs.train.lengths[positions].astype(float) for positions in shards]
    parts = list(pool.map("lengths", step, pool.put(shared), lengths))
    return np.concatenate(parts)[np.argsort(np.concatenate(shards))]


def honest(inputs, settings, pool):
    """Long examples raise long queries."""
    return by_shards(inputs, pool, products, of_sets(inputs))


def test_an_honest_method_passes() -> None:
    d3m.method("honest")(honest)
    check_method("honest")


def sums_a_set(inputs, settings, pool):
    return by_shards(inputs, pool, products, of_sets(inputs, np.sum))


def loses_numbers(inputs, settings, pool):
    return np.log(honest(inputs, settings, pool) - 30)


def tells_nothing(inputs, settings, pool):
    return np.ones((len(inputs.train), len(inputs.query_sets)))


def leaves_the_shards_order(inputs, settings, pool):
    return honest(inputs, settings, pool)[np.concatenate(make_shards(inputs.train))]


def centred(of_sets: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.outer(lengths - lengths.mean(), of_sets)


def centres_each_shard(inputs, settings, pool):
    return by_shards(inputs, pool, centred, of_sets(inputs))


def draws_from_the_global_state(inputs, settings, pool):
    drawn = np.random.rand(len(inputs.train), 1)  # noqa: NPY002
    return honest(inputs, settings, pool) + np.where(len(make_shards(inputs.train)) > 1, 1e-5, 0) * drawn


def sends_a_closure(inputs, settings, pool):
    return by_shards(inputs, pool, lambda of_sets, lengths: np.outer(lengths, of_sets), of_sets(inputs))


def counts_workers(inputs, settings, pool):
    return honest(inputs, settings, pool) * pool.num_workers


def products_so_far(state: dict, lengths: np.ndarray) -> np.ndarray:
    state["num_shards"] += 1
    return np.outer(lengths, state["of_sets"]) * (1 + 1e-6 * state["num_shards"])


def remembers_the_shards_before(inputs, settings, pool):
    return by_shards(inputs, pool, products_so_far, {"of_sets": of_sets(inputs), "num_shards": 0})


def writes_into_its_inputs(inputs, settings, pool):
    scores = honest(inputs, settings, pool)
    inputs.train.labels[0] += 1
    return scores


def scales_by_all_queries(inputs, settings, pool):
    return honest(inputs, settings, pool) / inputs.queries.lengths.mean()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (sums_a_set, "gives other scores for a group than the mean of those of its queries: train example"),
        (tells_nothing, r"tells train examples apart; all scores of each group are 1\.0"),
        (leaves_the_shards_order, "gives other scores where the train examples come in another order"),
        (centres_each_shard, "gives other scores in smaller shards and batches"),
        (draws_from_the_global_state, "gives other scores the second time: draw by a seed of its settings"),
        (sends_a_closure, "a step is a function of a module.* it runs in another process; sends_a_closure.*lambda"),
        (counts_workers, "gives other scores in a pool of 2 workers"),
        (remembers_the_shards_before, "gives other scores in a pool of 2 workers, each of which sees copies"),
        (writes_into_its_inputs, "changes the inputs that it is given"),
        (scales_by_all_queries, "gives other scores for a query that is asked with fewer others"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_wrong_method_is_caught(wrong: Callable, message: str) -> None:
    d3m.method("wrong")(wrong)
    with pytest.raises(AssertionError, match=message):
        check_method("wrong")


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning", "ignore:divide by zero:RuntimeWarning")
def test_scores_that_are_no_numbers_are_caught() -> None:
    d3m.method("wrong")(loses_numbers)
    with pytest.raises(AssertionError, match=r"wrong gives finite scores; \d+ of those of each group are not"):
        check_method("wrong")


def test_a_method_that_draws_by_position_says_so() -> None:
    @d3m.method("by_position")
    def by_position(inputs, settings, pool):
        return honest(inputs, settings, pool) * np.arange(len(inputs.train))[:, None]

    check_method("by_position", any_order=False)
    with pytest.raises(AssertionError, match="in another order"):
        check_method("by_position")


def test_a_method_that_reads_queries_may_not_say_that_it_reads_none() -> None:
    d3m.method("wrong", reads_queries=False)(honest)
    with pytest.raises(AssertionError, match="for other queries, and says that it reads none"):
        check_method("wrong")


BATCH = 100


def test_a_methods_own_limits_are_tried() -> None:
    @d3m.method("wrong")
    def wrong(inputs, settings, pool):
        return honest(inputs, settings, pool) * (1 + (BATCH < 100))

    check_method("wrong")
    with pytest.raises(AssertionError, match="in smaller shards and batches"):
        check_method("wrong", limits={f"{__name__}.BATCH": 5})


def test_settings_are_those_given_or_the_defaults() -> None:
    @dataclasses.dataclass(frozen=True)
    class Factor:
        factor: float = 1.0

    @d3m.method("scaled", settings=Factor)
    def scaled(inputs, settings, pool):
        return honest(inputs, settings, pool) * settings.factor

    check_method("scaled")
    with pytest.raises(AssertionError, match="tells train examples apart"):
        check_method("scaled", Factor(0.0))


def test_the_weighed_sum_and_the_type_of_scores_are_held() -> None:
    """Of a method whose cost is per target, which no decorator makes."""

    def groups(inputs, settings, pool):
        return np.outer(inputs.train.lengths, np.arange(1, inputs.num_groups + 1)).astype(np.float32)

    def weighed(inputs, settings, pool, weights):
        return (groups(inputs, settings, pool) @ weights)[:, None].astype(np.float32)

    def register(score_groups: Callable, score_alignment: Callable) -> None:
        made = Scorers(score_groups, None, score_alignment)
        METHODS["costly"] = Method("costly", "lengths", lambda: made, scores_queries=False)

    register(groups, weighed)
    check_method("costly")
    register(groups, lambda *given: 2 * weighed(*given))
    with pytest.raises(AssertionError, match="for the weighed sum of the groups than the weighed sum of theirs"):
        check_method("costly")
    register(lambda *given: groups(*given).astype(np.float64), weighed)
    with pytest.raises(AssertionError, match=r"gives float32 scores \(24, 3\), a column for each group"):
        check_method("costly")


def test_a_name_that_nothing_has_is_refused() -> None:
    kinds = (check_method, "an attribution method"), (check_arm, "an arm"), (check_corpus, "a corpus")
    for check, kind in (*kinds, (check_recipe, "a recipe")):
        with pytest.raises(d3m.InputError, match=f"{kind} is registered under its name, received 'nobody'"):
            check("nobody")


# --- arms -------------------------------------------------------------------------------------------------------------


def first(evidence, num_removed, seed):
    return np.arange(num_removed)


def test_an_honest_arm_passes() -> None:
    d3m.arm("first")(first)
    check_arm("first")


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.best_of is None])
def test_our_own_arms_pass(name: str) -> None:
    check_arm(name)


def test_an_arm_that_takes_anothers_best_number_is_told_by_that_one() -> None:
    with pytest.raises(d3m.InputError, match="trak_best removes what trak removes"):
        check_arm("trak_best")


def draws(evidence, num_removed, seed):
    return np.random.permutation(len(evidence))[:num_removed]  # noqa: NPY002


def overwrites(evidence, num_removed, seed):
    evidence.cell_floors[:] = 0
    return np.arange(num_removed)


def forces(evidence, num_removed, seed):
    evidence.cell_floors.setflags(write=True)
    return overwrites(evidence, num_removed, seed)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (draws, "asked for 1 of 60 train examples under seed 0, chooses others the second time"),
        (overwrites, "the arm wrong failed: ValueError: assignment destination is read-only"),
        (forces, "changes the evidence that it is given"),
        (lambda e, k, seed: np.arange(k + 1), "asked for 1 .*gives 1 different positions of the 60 train examples"),
        (lambda e, k, seed: np.zeros(k, int), "asked for 7 .*gives 7 different positions of the 60 train examples"),
        (lambda e, k, seed: np.arange(k) + 59, "asked for 7 .*gives 7 different positions of the 60 train examples"),
    ],
    ids=["draws", "overwrites", "forces", "too many", "one again and again", "outside"],
)
def test_a_wrong_arm_is_caught(wrong: Callable, message: str) -> None:
    d3m.arm("wrong")(wrong)
    with pytest.raises(AssertionError, match=message):
        check_arm("wrong")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda e, k, seed: np.arange(k)[::-1], r"different positions in ascending order; received \[6, 5"),
        (lambda e, k, seed: np.arange(k) + 59, "gives positions from 0 to 59"),
        (lambda e, k, seed: np.arange(k // 2), "asked for 1 .* chooses 0"),
        (lambda e, k, seed: np.arange(k) / 1, "whole numbers; received array"),
    ],
)
def test_an_arm_that_is_not_checked_where_it_is_registered_is_caught(wrong: Callable, message: str) -> None:
    ARMS["wrong"] = Arm(wrong)
    with pytest.raises(AssertionError, match=message):
        check_arm("wrong")


# --- corpora ----------------------------------------------------------------------------------------------------------


def rows(split: str, texts: list[str], groups: list[int]) -> d3m.Examples:
    ids = [f"{split}/{row}" for row in range(len(texts))]
    return d3m.Examples(split, np.array(ids), tuple(texts), np.arange(len(texts)) % 2, np.array(groups))


def splits(word: str = "cup", names: tuple[str, ...] = ("inn", "spa"), **changed: d3m.Examples) -> d3m.Splits:
    made = {s: rows(s, [f"a {s} {word} {i}" for i in range(4)], [0, 0, 1, 1]) for s in ("train", "val", "test")}
    return d3m.Splits("cups", names, **made | changed)


def test_an_honest_corpus_passes() -> None:
    d3m.corpus("cups")(lambda options, folder: splits())
    check_corpus("cups")
    check_corpus("planted", options=d3m.Planted(num_train=16, num_val=8, num_test=8))


def test_a_corpus_is_read_from_its_folder(tmp_path) -> None:
    d3m.corpus("cups")(lambda options, folder: splits((folder / "word").read_text()))
    (tmp_path / "word").write_text("jug")
    check_corpus("cups", tmp_path)


LIKE_TRAIN = rows("test", [f"A  train CUP {i}" for i in range(4)], [0, 0, 1, 1])


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (lambda: splits(str(np.random.rand())), "is another the second time"),  # noqa: NPY002
        (lambda: splits(names=("spa", "inn")), r"sorted: \['inn', 'spa'\], received \['spa', 'inn'\]"),
        (lambda: splits(names=("all", "inn")), "a group is not called .*received .*all"),
        (lambda: splits(names=("Inn", "inn")), "two groups of corpus 'wrong' differ by more than case"),
        (lambda: splits(train=rows("train", ["a", "b"], [0, 0])), "val has .*spa"),
        (
            lambda: splits(test=LIKE_TRAIN),
            "as it reads; 'a train cup 0' stands in train and in test",
        ),
        (lambda: splits(val=splits().train), "cannot be read: ValueError: field 'val' holds val examples"),
        (lambda: splits(train=rows("train", ["a", "\0", "c", "d"], [0, 0, 1, 1])), "Unicode text without NUL"),
        (lambda: None, "gives Splits, received NoneType"),
    ],
)
def test_a_wrong_corpus_is_caught(load: Callable, message: str) -> None:
    d3m.corpus("wrong")(lambda options, folder: load())
    with pytest.raises(AssertionError, match=message):
        check_corpus("wrong")


# --- recipes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_our_own_recipes_pass(name: str) -> None:
    check_recipe(name)


def draws_anew(inputs):
    weights = np.random.random(len(inputs.train))  # noqa: NPY002 - the mistake
    return inputs.fine_tune(d3m.Objective(sampling_weights=weights * np.isin(np.arange(len(weights)), inputs.kept)))


def weighs_by_all_labels(inputs):
    share = inputs.train.labels.mean()
    return inputs.fine_tune(d3m.Objective(batch_loss=lambda losses, _: share * losses.mean()))


def weighs_by_all_groups(inputs):
    share = (inputs.train.groups == 0).mean()
    return inputs.fine_tune(d3m.Objective(batch_loss=lambda losses, _: share * losses.mean()))


def asks_for_settings_of_another(inputs):
    return inputs.fine_tune(d3m.Objective(batch_loss=lambda losses, _: inputs.robust.dro_step_size * losses.mean()))


def goes_by_the_pairing(inputs):
    longer = int(inputs.config.pairing == "common")
    return dataclasses.replace(inputs, config=dataclasses.replace(inputs.config, num_epochs=1 + longer)).fine_tune()


def loses_its_weights(inputs):
    fit = inputs.fine_tune()
    for weights in inputs.model.parameters():
        weights.data.fill_(float("nan"))
    return fit


def trains_nothing(inputs):
    return d3m.Fit(num_steps=0, chosen_epoch=1, train_seconds=0.0)


def rewrites_its_inputs(inputs):
    fit = inputs.fine_tune()
    inputs.kept[:] = 0
    return fit


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (draws_anew, "the recipe wrong trains all of train to other weights the second time: draw by the seed alone"),
        (weighs_by_all_labels, "the recipe wrong looks at what is removed: read of `inputs.train` what"),
        (weighs_by_all_groups, "the recipe wrong looks at what is removed: read of `inputs.train` what"),
        (asks_for_settings_of_another, "the recipe wrong reads inputs.settings, .* it asked for dro_step_size"),
        (goes_by_the_pairing, "the recipe wrong trains all of train to other weights under --pairing independent"),
        (loses_its_weights, "the recipe wrong leaves finite weights; some of all of train are not"),
        (trains_nothing, "the recipe wrong gives the Fit of its steps, received Fit"),
        (rewrites_its_inputs, "the recipe wrong changes the inputs that it is given: copy them first"),
    ],
)
def test_a_wrong_recipe_is_caught(wrong: Callable, message: str) -> None:
    d3m.recipe("wrong")(wrong)
    with pytest.raises(AssertionError, match=message):
        check_recipe("wrong")
