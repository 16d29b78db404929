"""An experiment from its record: the same configuration comes back, or a line says why it cannot."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_towns import make_towns

import d3m_ray as d3m
from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.corpora import CORPORA
from d3m_ray.errors import InputError
from d3m_ray.experiment.plan import record_plan
from d3m_ray.experiment.progress import Progress
from d3m_ray.experiment.repeat import config_of
from d3m_ray.experiment.story import prepare
from d3m_ray.records import FIRST_DRAW
from d3m_ray.selection.arms import ARMS
from d3m_ray.store.experiments import Experiment, PlannedTrial
from d3m_ray.store.store import Store

pytestmark = pytest.mark.usefixtures("own_registries")

GOLDEN_STORE = Path(__file__).resolve().parents[1] / "golden" / "store_0.1.0"
PLANTED = d3m.ExperimentConfig(
    d3m.Planted(num_train=48, num_val=24, num_test=24, seed=3),
    model="tiny",
    store_texts=False,
    methods=("trak", "trak_heuristic", "random"),
    num_removed=(0, 6, "25%"),
    seeds=(2, 0),
    num_checkpoints=2,
    training=d3m.TrainingConfig(num_epochs=1, learning_rate=1e-3),
    robust=d3m.RobustConfig(jtt_upweight=3),
    trak=d3m.TrakConfig(damping=2.0),
    ekfac=d3m.EkfacConfig(modules=("classifier",)),
    alignment=d3m.AlignmentConfig(target="margin"),
    selection=d3m.SelectionConfig(cell_floor="5%"),
)
PLACES = ("inn", "tent", "camp", "barn", "hut", "lodge", "cabin", "house")


@dataclasses.dataclass(frozen=True)
class LengthConfig:
    """Settings of the length."""

    kinds: tuple[str, ...] = ("words",)


def recorded(config: d3m.ExperimentConfig, root: Path) -> Experiment:
    """The record that a run of this configuration begins with."""
    store = Store(root)
    prepared = prepare(config, store, Progress())
    record_plan(prepared, Progress())
    record = store.read_experiment(prepared.context.experiment)
    assert record is not None
    return record


def test_the_configuration_comes_back(tmp_path: Path) -> None:
    record = recorded(PLANTED, tmp_path)
    expected = dataclasses.replace(
        PLANTED,
        store=str(tmp_path),
        experiment=record.name,
        methods=("trak", "random", "trak_heuristic"),  # in the order of the plan: what decides its own number is last
        num_removed=(0, 6, 12),
        seeds=(0, 2),
    )
    assert config_of(record, str(tmp_path)) == expected
    again = recorded(config_of(record, str(tmp_path)), tmp_path)
    assert (again.configuration, set(again.plan)) == (record.configuration, set(record.plan))


def test_a_folder_and_the_options_of_a_corpus_come_back(tmp_path: Path) -> None:
    states = [("bad", "damp"), ("bad", "loud"), ("good", "calm"), ("good", "dry")]
    rows = [f"the {place} is {state},{label},harbour" for place in PLACES for label, state in states]
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "reviews.csv").write_text("\n".join(["text,label,group", *rows]))
    own = d3m.Own(labels=("bad", "good"))
    config = d3m.ExperimentConfig(own, data=folder, model="tiny", methods=("random",), num_removed=(0,))
    record = recorded(config, tmp_path / "store")
    found = config_of(record, "elsewhere")
    assert (found.corpus, found.data, found.store) == (own, folder, "elsewhere")


def with_plugins(root: Path) -> Experiment:
    d3m.corpus("towns")(make_towns)
    d3m.method("length", settings=LengthConfig)(lambda inputs, settings, pool: np.zeros((1, 1)))
    d3m.arm("first")(lambda evidence, num_removed, seed: np.arange(num_removed))
    plugins = {"length": LengthConfig(kinds=("signs", "words"))}
    methods = ("length", "first", "random")
    return recorded(
        d3m.ExperimentConfig("towns", model="tiny", methods=methods, num_removed=(0, 4), plugins=plugins), root
    )


def test_what_plug_ins_brought_comes_back(tmp_path: Path) -> None:
    config = config_of(with_plugins(tmp_path), "store")
    assert config.plugins == {"length": LengthConfig(kinds=("signs", "words"))}
    assert type(config.corpus) is CORPORA["towns"].options
    assert config.methods == ("length", "first", "random")


@pytest.mark.parametrize(
    ("registry", "name", "said"),
    [
        (CORPORA, "towns", "the corpus of .* is 'towns', which is not registered here"),
        (ARMS, "first", "an arm of .* is 'first', which is not registered here: install, or import, the plug-in"),
        (METHODS, "length", "a method or recipe of .* with settings is 'length', which is not registered here"),
    ],
)
def test_what_is_not_registered_here_is_named(registry: dict[str, Any], name: str, said: str, tmp_path: Path) -> None:
    record = with_plugins(tmp_path)
    registry.pop(name)
    with pytest.raises(InputError, match=said):
        config_of(record, str(tmp_path))


def test_the_record_of_an_earlier_version_is_refused() -> None:
    (record,) = Store(GOLDEN_STORE).read_experiments().values()
    with pytest.raises(InputError, match="the record of golden is of an earlier version, without its corpus"):
        config_of(record, str(GOLDEN_STORE))


def test_the_record_of_a_study_is_refused(tmp_path: Path) -> None:
    record = recorded(PLANTED, tmp_path)
    study = dataclasses.replace(record, plan=(*record.plan, PlannedTrial("random", 24, FIRST_DRAW)))
    with pytest.raises(InputError, match="is an LDS or a leaderboard, of which the record does not keep the subsets"):
        config_of(study, str(tmp_path))


def test_settings_of_plug_ins_are_part_of_what_a_name_stands_for(tmp_path: Path) -> None:
    d3m.method("length", settings=LengthConfig)(lambda inputs, settings, pool: np.zeros((1, 1)))
    plain = dataclasses.replace(PLANTED, methods=("length", "random"), experiment="named")
    recorded(plain, tmp_path)
    with pytest.raises(InputError, match="'named' was begun with other values of plugins"):
        recorded(dataclasses.replace(plain, plugins={"length": LengthConfig(kinds=("signs",))}), tmp_path)


def register_length(by_default: str) -> None:
    for registry in (METHODS, ARMS):
        for name in [name for name in registry if name.startswith("length")]:
            registry.pop(name)
    of_day = dataclasses.make_dataclass("OfDay", [("kind", str, by_default)], frozen=True)
    d3m.method("length", settings=of_day)(lambda inputs, settings, pool: np.zeros((1, 1)))


def test_trials_by_a_plug_in_s_default_of_yesterday_are_joined_by_none_of_today_s(tmp_path: Path) -> None:
    """Its author may change a default: the record has what the arms rest on, whether it was given or not."""
    register_length("words")
    plain = dataclasses.replace(PLANTED, methods=("random",), experiment="named")
    with_length = dataclasses.replace(plain, methods=("length", "random"))
    for asked in (plain, with_length, plain):  # by more arms and by fewer
        record = recorded(asked, tmp_path)
    register_length("signs")
    recorded(plain, tmp_path)
    with pytest.raises(InputError, match=r"other values of plugins: .*\(kind was 'words' and is 'signs'\)"):
        recorded(dataclasses.replace(with_length, seeds=(9,)), tmp_path)
    again = config_of(record, str(tmp_path))
    assert again.plugins["length"].kind == "words"
    recorded(again, tmp_path)
