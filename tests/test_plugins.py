"""What others register: methods, arms, recipes, corpora, by their own names, flags and keys, or refused in a line."""

import dataclasses
import functools
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_towns import SMALL_RUN, make_towns
from ray import cloudpickle

import d3m_ray as d3m
from d3m_ray.attribution.registry import METHODS
from d3m_ray.commands.flags import narrowed, plain
from d3m_ray.data.checks import DataError
from d3m_ray.data.corpora import CORPORA, load_splits
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.keys import scores_key
from d3m_ray.experiment.plan import recipes_of
from d3m_ray.made_up import made_fit
from d3m_ray.records import Examples, Splits
from d3m_ray.selection.arms import ARMS, Evidence, selection_of
from d3m_ray.store.store import Store
from d3m_ray.training.registry import RECIPES
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.trial import TrialContext

pytestmark = pytest.mark.usefixtures("own_registries")

LENGTHS = np.array([5, 9, 2, 7, 3, 8])
EVIDENCE = Evidence(np.array([0, 1, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 1, 1]))


@dataclass(frozen=True)
class LengthConfig:
    """Settings of the length."""

    sharpness: float = 2.0
    """How much a token counts."""
    kinds: tuple[str, ...] = ("words",)
    """What is counted."""


def register_length(name: str = "length", version: int = 1) -> None:
    @d3m.method(name, settings=LengthConfig, version=version)
    def length(inputs: d3m.AttributionInputs, settings: LengthConfig, pool: d3m.WorkerPool) -> np.ndarray:
        """How long a text is, the longer the worse.

        Nothing else.
        """
        return -settings.sharpness * np.tile(inputs.train.lengths[:, None], (1, len(inputs.query_sets)))


def config(**fields: Any) -> d3m.ExperimentConfig:
    return d3m.ExperimentConfig(d3m.Planted(), model="tiny", **fields)


def context_of(given: d3m.ExperimentConfig, root: Path) -> TrialContext:
    examples = {
        split: Examples(split, np.array([f"{split}/0"]), (f"a {split} text",), np.array([0]), np.array([0]))
        for split in ("train", "val", "test")
    }
    splits = Splits(name="made_up", group_names=("amber",), **examples)
    training = TrainingConfig(precision="float32")
    of_run = ("an experiment", Store(root), splits, {}, None, training, given.robust)
    return TrialContext(*of_run, data_hash="data", model_hash="model", recipes=recipes_of(given))  # type: ignore[arg-type]


def key_of(method: str, given: d3m.ExperimentConfig, root: Path) -> str:
    return scores_key(method, given, context_of(given, root))


# --- methods ----------------------------------------------------------------------------------------------------------


def test_a_method_is_known_by_name_with_its_arms_and_its_first_line() -> None:
    register_length()
    method = METHODS["length"]
    assert method.scores == "How long a text is, the longer the worse"
    assert (method.defaults, method.reads) == (LengthConfig(), ("sharpness", "kinds"))
    added = {name for name in ARMS if name.startswith("length")}
    plain_arms = {"length", "length_heuristic", "length_helpful", "length_best"}
    assert added == plain_arms | {f"length_auto{name.removeprefix('length')}" for name in plain_arms}


def test_a_method_that_reads_no_query_has_no_pseudo_groups() -> None:
    d3m.method("plain", reads_queries=False)(lambda inputs, settings, pool: np.zeros((1, 1)))
    assert {name for name in ARMS if name.startswith("plain_")} == {"plain_heuristic", "plain_helpful", "plain_best"}
    assert config(methods=("plain",)).settings_of("plain") is None


def test_settings_and_version_enter_the_keys_of_the_scores_and_no_others(tmp_path: Path) -> None:
    register_length()
    plain_config = config(methods=("length",))
    first = key_of("length", plain_config, tmp_path)
    for changed in (LengthConfig(sharpness=3.0), LengthConfig(kinds=("signs",))):
        other = config(methods=("length",), plugins={"length": changed})
        assert other.settings_of("length") == changed
        assert key_of("length", other, tmp_path) != first
        assert key_of("trak", other, tmp_path) == key_of("trak", plain_config, tmp_path)
    METHODS.pop("length")
    for name in [name for name in ARMS if name.startswith("length")]:
        ARMS.pop(name)
    register_length(version=2)
    assert key_of("length", plain_config, tmp_path) != first


@pytest.mark.parametrize("kept", [True, False])
def test_two_notebooks_methods_of_one_name_have_keys_of_their_own(
    kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of both the module is `__main__`; with or without the source that a notebook keeps."""

    def one(inputs: d3m.AttributionInputs, settings: None, pool: d3m.WorkerPool) -> np.ndarray:
        return np.ones((len(inputs.train), len(inputs.query_sets)))

    def other(inputs: d3m.AttributionInputs, settings: None, pool: d3m.WorkerPool) -> np.ndarray:
        return np.zeros((len(inputs.train), len(inputs.query_sets)))

    def key(score: Any) -> str:
        score.__module__ = "__main__"
        METHODS.pop("noted", None)
        for name in [name for name in ARMS if name.startswith("noted")]:
            ARMS.pop(name)
        d3m.method("noted")(score)
        return key_of("noted", config(methods=("noted",)), tmp_path)

    if not kept:
        monkeypatch.setattr("inspect.getsource", lambda function: open(tmp_path / "none"))  # noqa: PTH123, SIM115
    assert key(one) == key(one) != key(other)


@pytest.mark.parametrize("value", [Path("rows"), frozenset({"a"}), ((float("inf"),),), [float("nan")], np.arange(2)])
def test_values_that_no_record_can_hold_are_refused(value: Any) -> None:
    @dataclass(frozen=True)
    class Loose:
        value: Any = None

    d3m.method("loose", settings=Loose)(lambda inputs, settings, pool: np.zeros((1, 1)))
    with pytest.raises(InputError, match="the settings of loose are finite numbers, words and lists of them, received"):
        config(plugins={"loose": Loose(value)})
    d3m.corpus("loose", options=Loose)(make_towns)
    with pytest.raises(InputError, match="the options of loose are finite numbers, words and lists of them, received"):
        d3m.ExperimentConfig(Loose(value))

    @dataclass(frozen=True)
    class Filled:
        value: Any = dataclasses.field(default_factory=lambda: value)

    with pytest.raises(InputError, match="the settings of filled are finite numbers, words and lists"):
        d3m.method("filled", settings=Filled)


def test_settings_that_are_the_defaults_are_as_good_as_none() -> None:
    register_length()
    assert config(plugins={"length": LengthConfig()}).plugins == {}


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        ({"trak": LengthConfig()}, "trak takes no settings of a plug-in"),
        ({"unknown": LengthConfig()}, "unknown takes no settings of a plug-in"),
        ({"length": d3m.TrakConfig()}, "length takes LengthConfig"),
        ({"length": LengthConfig(sharpness=float("nan"))}, "--length-sharpness is a finite number"),
    ],
)
def test_settings_of_the_wrong_method_are_refused(plugins: dict[str, Any], said: str) -> None:
    register_length()
    with pytest.raises(InputError, match=said):
        config(plugins=plugins)


def test_a_method_whose_name_is_a_setting_s_keeps_its_own() -> None:
    """`model` and `seeds` are fields of the configuration, and names that a method may have."""
    register_length("model")
    given = config(plugins={"model": LengthConfig(sharpness=5.0)})
    wide = narrowed(given)
    assert wide.model == "tiny"
    assert plain(wide) == given
    assert type(plain(wide)) is d3m.ExperimentConfig


# --- arms -------------------------------------------------------------------------------------------------------------


def test_an_arm_gives_its_positions_in_order() -> None:
    @d3m.arm("longest")
    def longest(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
        return np.argsort(-LENGTHS)[:num_removed]

    selection = selection_of("longest", EVIDENCE, 2, 0)
    assert (selection.removed.tolist(), selection.removed.dtype) == ([1, 5], np.int64)
    assert config(methods=("longest",)).methods == ("longest",)


def test_an_arm_sees_what_it_asked_for_and_not_what_the_store_happens_to_hold() -> None:
    seen: list[Evidence] = []
    for name, reads in (("blind", {}), ("seeing", {"alignment": "trak", "reads_cell_losses": True})):

        @d3m.arm(name, **reads)
        def look(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
            seen.append(evidence)
            return np.arange(num_removed)

    full = dataclasses.replace(EVIDENCE, alignments={"trak": LENGTHS, "ekfac": -LENGTHS}, cell_losses=np.ones((2, 2)))
    assert ARMS["blind"].can_select(EVIDENCE)
    assert not ARMS["seeing"].can_select(EVIDENCE)
    for name in ("blind", "seeing"):
        ARMS[name].select(full, 2, 0)
    blind, seeing = seen
    assert (dict(blind.alignments), blind.cell_losses) == ({}, None)
    assert list(seeing.alignments) == ["trak"]
    assert np.array_equal(seeing.cell_losses, full.cell_losses)


@pytest.mark.parametrize(
    "selected", [[0, 0], [0], [0, 6], [-1, 2], [0.0, 1.0], [[0, 1]], [True, False, False, True, False, False], None]
)
def test_an_arm_of_a_wrong_selection_is_named(selected: Any) -> None:
    d3m.arm("wrong")(lambda evidence, num_removed, seed: selected)
    with pytest.raises(RunError, match="the arm wrong gives 2 different positions of the 6 train examples"):
        ARMS["wrong"].select(EVIDENCE, 2, 0)


def test_an_arm_that_fails_is_named() -> None:
    d3m.arm("wrong")(lambda evidence, num_removed, seed: {}["dates"])
    with pytest.raises(RunError, match="the arm wrong failed: KeyError: 'dates'"):
        ARMS["wrong"].select(EVIDENCE, 2, 0)


@pytest.mark.parametrize("name", ["labels", "groups", "cell_losses", "cell_floors"])
def test_no_arm_changes_what_the_others_see(name: str) -> None:
    full = dataclasses.replace(EVIDENCE, cell_losses=np.ones((2, 2)), cell_floors=np.array([1, 1, 1, 1]))

    @d3m.arm("wrong", reads_cell_losses=True)
    def wrong(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
        getattr(evidence, name)[:] = 0
        return np.arange(num_removed)

    with pytest.raises(RunError, match="the arm wrong failed: ValueError: assignment destination is read-only"):
        ARMS["wrong"].select(full, 2, 0)


def test_no_arm_changes_an_alignment() -> None:
    alignment = LENGTHS.astype(np.float64)

    @d3m.arm("wrong", alignment="trak")
    def wrong(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
        evidence.alignments["trak"].sort()
        return np.arange(num_removed)

    with pytest.raises(RunError, match="read-only"):
        ARMS["wrong"].select(dataclasses.replace(EVIDENCE, alignments={"trak": alignment}), 2, 0)
    assert alignment.tolist() == LENGTHS.tolist()
    alignment[0] = 0.0  # whoever made it may


def test_an_arm_that_goes_by_an_alignment_leaves_each_cell_its_floor() -> None:
    d3m.arm("deep", alignment="trak")(lambda evidence, num_removed, seed: np.arange(num_removed))
    guarded = dataclasses.replace(EVIDENCE, alignments={"trak": LENGTHS}, cell_floors=np.array([1, 1, 1, 1]))
    with pytest.raises(RunError, match="leaves each cell its --cell-floor"):
        ARMS["deep"].select(guarded, 2, 0)
    assert ARMS["deep"].select(dataclasses.replace(guarded, cell_floors=None), 2, 0).tolist() == [0, 1]


# --- corpora ----------------------------------------------------------------------------------------------------------


def test_a_corpus_is_known_by_name_and_by_its_options(tmp_path: Path) -> None:
    d3m.corpus("towns")(make_towns)
    named = d3m.ExperimentConfig("towns", model="tiny")
    assert type(named.corpus) is CORPORA["towns"].options
    splits = load_splits(named.corpus)
    assert (splits.name, len(splits.train)) == ("towns", 48)
    assert CORPORA["towns"].summary == "Towns, fine or grey"
    with pytest.raises(DataError, match="--data is a folder or a file"):
        load_splits(named.corpus, tmp_path / "nowhere")


def test_a_corpus_by_a_name_like_another_s_is_told_of_that() -> None:
    with pytest.raises(InputError, match=r"the corpus is one of 'toxigen', .*did you mean 'planted'"):
        d3m.ExperimentConfig("plantet")


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (lambda options, folder: {}["rows"], "the corpus towns cannot be read: KeyError: 'rows'"),
        (lambda options, folder: pd.DataFrame(), "the corpus towns gives Splits, received DataFrame"),
    ],
)
def test_a_corpus_that_cannot_be_read_is_an_input_error(load: Any, said: str) -> None:
    d3m.corpus("towns")(load)
    with pytest.raises(DataError, match=said):
        load_splits(CORPORA["towns"].options())


# --- recipes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CutConfig:
    """Settings of the recipe."""

    most: float = 1.0


def cut(inputs: d3m.FitInputs) -> d3m.Fit:
    """Losses that are cut.

    Nothing else.
    """
    return inputs.fine_tune(d3m.Objective(batch_loss=lambda losses, _: losses.clamp(max=inputs.settings.most).mean()))


@dataclass(frozen=True)
class Sharpened:
    """Holds what a recipe would go by."""

    most: float

    def __call__(self, inputs: d3m.FitInputs) -> d3m.Fit:
        return inputs.fine_tune()


def fit_key_of(recipe: str, given: d3m.ExperimentConfig, root: Path) -> str:
    return context_of(given, root).fit_key(np.arange(0), 0, recipe)


def test_a_recipe_is_known_by_name_with_its_arm_and_its_first_line() -> None:
    d3m.recipe("cut", settings=CutConfig)(cut)
    recipe, arm = RECIPES["cut"], ARMS["cut"]
    assert (recipe.summary, recipe.settings) == ("Losses that are cut", CutConfig())
    assert (arm.recipe, arm.chooses_number, arm.alignment) == ("cut", True, None)
    assert arm.select(EVIDENCE, 0, 0).tolist() == []
    d3m.arm("longest", recipe="cut")(lambda evidence, num_removed, seed: np.argsort(-LENGTHS)[:num_removed])
    assert ARMS["longest"].recipe == "cut"


def test_a_recipe_s_settings_and_version_enter_the_keys_of_its_fits_and_no_others(tmp_path: Path) -> None:
    d3m.recipe("cut", settings=CutConfig)(cut)
    plain_config = config(methods=("cut", "jtt"))
    other = config(methods=("cut", "jtt"), plugins={"cut": CutConfig(most=0.5)})
    first = fit_key_of("cut", plain_config, tmp_path)
    assert fit_key_of("cut", other, tmp_path) != first
    for name in ("erm", "jtt"):
        assert fit_key_of(name, other, tmp_path) == fit_key_of(name, plain_config, tmp_path)
    for registry in (RECIPES, ARMS):
        registry.pop("cut")
    d3m.recipe("cut", settings=CutConfig, version=2)(cut)
    assert fit_key_of("cut", plain_config, tmp_path) != first


def test_a_recipe_that_leaves_something_out_itself_has_a_key_for_each_pairing(tmp_path: Path) -> None:
    @d3m.recipe("half")
    def half(inputs: d3m.FitInputs) -> d3m.Fit:
        return dataclasses.replace(inputs, kept=inputs.kept[::2]).fine_tune()

    def key(recipe: str, **pairing: Any) -> str:
        context = context_of(config(methods=("half", "jtt")), tmp_path)
        changed = dataclasses.replace(context, training=dataclasses.replace(context.training, **pairing))
        return changed.fit_key(np.arange(0), 0, recipe)

    keys = [key("half", pairing="independent", step_matched=matched) for matched in (False, True)]
    assert len({key("half", pairing="common"), *keys}) == 3
    assert key("half", pairing="common") == key("half", pairing="common", step_matched=True)
    assert key("jtt", pairing="common") == key("jtt", pairing="independent")


@pytest.mark.parametrize("register", [d3m.recipe, d3m.method])
@pytest.mark.parametrize("holding", [functools.partial(cut, most=0.5), Sharpened(0.5)])
def test_what_holds_values_that_enter_no_key_is_refused(register: Any, holding: Any) -> None:
    with pytest.raises(InputError, match=r"what is registered is a function, received .*make the values that it holds"):
        register("held")(holding)
    assert not any("held" in registry for registry in (RECIPES, METHODS, ARMS))


def test_a_recipe_travels_to_workers_that_know_nothing_of_it(tmp_path: Path) -> None:
    """One of a notebook, too: a worker imports no plug-in by itself."""

    @d3m.recipe("cut", settings=CutConfig)
    def cut_here(inputs: d3m.FitInputs) -> d3m.Fit:
        return inputs.fine_tune(d3m.Objective(batch_loss=lambda losses, _: inputs.settings.most * losses.mean()))

    given = config(methods=("cut",), plugins={"cut": CutConfig(most=0.5)})
    sent = cloudpickle.dumps(context_of(given, tmp_path).recipes)
    RECIPES.pop("cut")
    arrived = pickle.loads(sent)
    assert set(arrived) == {"erm", "cut"}
    recipe = arrived["cut"]
    assert recipe.settings == CutConfig(most=0.5)
    assert recipe.fit(made_fit(recipe)).num_steps > 0


def test_a_recipe_that_gives_no_fit_is_named() -> None:
    d3m.recipe("cut")(lambda inputs: None)
    with pytest.raises(RunError, match=r"the recipe cut gives the Fit of inputs.fine_tune\(\), received NoneType"):
        RECIPES["cut"].fit(made_fit(RECIPES["cut"]))


def test_a_recipe_leaves_a_model_that_predicts_without_dropout() -> None:
    @d3m.recipe("lively")
    def lively(inputs: d3m.FitInputs) -> d3m.Fit:
        fit = inputs.fine_tune()
        inputs.model.train()
        return fit

    inputs = made_fit(RECIPES["lively"])
    RECIPES["lively"].fit(inputs)
    assert not inputs.model.training


# --- names and flags --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sharp:
    """An option."""

    sharpness: float = 1.0


@dataclass(frozen=True)
class Clashing:
    """Settings whose flags others have: --max-length of the method `max`, --seeds of a corpus."""

    length: int = 1
    seeds: int = 1
    length_sharpness: float = 1.0


@dataclass
class Thawed:
    """Not frozen."""

    size: int = 1


@dataclass(frozen=True)
class Needing:
    """Without a default."""

    size: int


@dataclass(frozen=True)
class Nested:
    """Settings within settings."""

    inner: Sharp = Sharp()


@pytest.mark.parametrize("register", [d3m.method, d3m.arm, d3m.recipe, d3m.corpus])
@pytest.mark.parametrize("name", ["", "My", "my-name", "1st", "a b", "name_auto", "name_best", "name_helpful"])
def test_a_name_is_a_word(register: Any, name: str) -> None:
    before = len(METHODS), len(ARMS), len(RECIPES), len(CORPORA)
    with pytest.raises(InputError, match=r"the name of an? .* is lower-case|the ending '_\w+' is of arms"):
        register(name)
    assert (len(METHODS), len(ARMS), len(RECIPES), len(CORPORA)) == before


@pytest.mark.parametrize(
    ("register", "name", "kind"),
    [
        (d3m.method, "trak", "an attribution method"),
        (d3m.method, "balanced", "an arm"),
        (d3m.arm, "random", "an arm"),
        (d3m.arm, "trak", "an arm"),
        (d3m.recipe, "jtt", "a recipe"),
        (d3m.recipe, "erm", "a recipe"),
        (d3m.recipe, "balanced", "a recipe"),
        (d3m.corpus, "own", "a corpus"),
    ],
)
def test_a_name_that_is_taken_is_refused(register: Any, name: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"the name of {kind} is its own; '{name}' is taken"):
        register(name)(lambda inputs, settings, pool: None)
    assert (METHODS["trak"].load is not None, ARMS["random"].alignment) == (True, None)


@pytest.mark.parametrize(
    ("register", "said"),
    [
        (lambda: d3m.method("max", settings=Clashing), "the setting of max has a flag of its own; --max-length is"),
        (lambda: d3m.corpus("towns", options=Clashing), "the option of towns has a flag of its own; --seeds is taken"),
        (lambda: d3m.method("other", settings=Thawed), "the settings of other are a frozen dataclass"),
        (lambda: d3m.method("other", settings=Needing), "the settings of other have a default for every field"),
        (lambda: d3m.corpus("towns", options=Nested), "inner holds settings of its own"),
        (lambda: d3m.corpus("towns", options=d3m.Planted), "the options of towns are a class of its own"),
        (lambda: d3m.recipe("max", settings=Clashing), "setting of max has a flag of its own; --max-length is"),
        (lambda: d3m.recipe("other", settings=Needing), "settings of other have a default for every field"),
        (lambda: d3m.arm("other", recipe="jtg"), "the recipe of the arm other is one of 'erm', .*did you mean 'jtt'"),
        (lambda: d3m.arm("other", alignment="nothing"), "reads the alignment of an attribution method"),
    ],
)
def test_settings_that_no_flags_can_be_made_of_are_refused(register: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        register()


def test_a_flag_of_another_plug_in_is_taken() -> None:
    register_length()
    only = dataclasses.make_dataclass("Only", [("length_sharpness", float, 1.0)], frozen=True)
    with pytest.raises(InputError, match="--length-sharpness is taken"):
        d3m.corpus("towns", options=only)


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_all_three_go_the_whole_way(tmp_path: Path) -> None:
    register_length()
    d3m.corpus("towns")(make_towns)

    @d3m.arm("longest")
    def longest(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
        assert evidence.train is not None
        return np.argsort([-len(text) for text in evidence.train.texts], kind="stable")[:num_removed]

    settings = {"length": LengthConfig(sharpness=3.0)}
    given = d3m.ExperimentConfig("towns", methods=("length", "length_auto", "longest"), plugins=settings, **SMALL_RUN)
    assert d3m.plan(given, tmp_path).num_fits == 2 + 2, "all of train, and without the longest, by two seeds"
    result = d3m.run(given, tmp_path, engine="local")
    assert result.failed == ()
    assert set(result.trials["method"]) == {"length", "length_auto", "longest"}
    store = Store(tmp_path)
    scores = d3m.read_scores(tmp_path, "length", result.experiment)["score"]
    assert (scores % 3.0 == 0).all()
    assert (scores < 0).all()
    (key,) = store.keys("query_scores")
    made_with = store.read_metadata("query_scores", key, "length")["configuration"]
    assert made_with["settings"] == {"sharpness": 3.0, "kinds": ["words"]}
    assert made_with["version"].endswith("test_plugins 1")


def test_what_a_recipe_leaves_in_its_model_reaches_no_other_fit(tmp_path: Path) -> None:
    """The process keeps its model from fit to fit, and what was frozen or hooked in it would train otherwise."""
    d3m.corpus("towns")(make_towns)

    @d3m.recipe("probe")
    def probe(inputs: d3m.FitInputs) -> d3m.Fit:
        inputs.model.base_model.requires_grad_(False)
        return inputs.fine_tune()

    def losses(*methods: str) -> list[float]:
        store = tmp_path / "-".join(methods)
        given = d3m.ExperimentConfig("towns", methods=methods, **{**SMALL_RUN, "seeds": (0,)})
        trials = d3m.run(given, store, engine="local").trials
        of_jtt: list[float] = trials[trials["method"] == "jtt"]["loss"].tolist()
        return of_jtt

    alone = losses("jtt")
    assert losses("probe", "jtt") == alone


def test_an_arm_by_an_alignment_goes_in_rounds(tmp_path: Path) -> None:
    register_length()
    d3m.corpus("towns")(make_towns)
    left = []

    @d3m.arm("longest", alignment="length")
    def longest(evidence: Evidence, num_removed: int, seed: int) -> np.ndarray:
        assert evidence.train is not None
        left.append((len(evidence.train), num_removed))
        alignment = evidence.alignments["length"]
        order = np.argsort(alignment, kind="stable")
        return order[evidence.may_go(alignment)[order]][:num_removed]

    rounds = d3m.SelectionConfig(rounds=2)
    given = d3m.ExperimentConfig("towns", methods=("longest",), selection=rounds, **SMALL_RUN)
    result = d3m.run(given, tmp_path, engine="local")
    assert result.failed == ()
    assert set(left) == {(48, 3), (45, 3)}
    assert d3m.read_removals(tmp_path, experiment=result.experiment).groupby("seed").size().tolist() == [6, 6]
