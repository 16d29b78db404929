"""The thesis's protocol: its settings where the user left the sweep's, and nothing that the user chose."""

import dataclasses

import pytest

from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.data.planted import Planted
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.thesis import THESIS_NUM_REMOVED, follow_thesis
from d3m_ray.selection.settings import AlignmentConfig, SelectionConfig

DEFAULTS = ExperimentConfig(Hatexplain(), num_removed=(0, 50), seeds=(0, 1, 2, 3))


def test_what_was_left_at_the_default_is_the_thesis():
    config = follow_thesis(dataclasses.replace(DEFAULTS, protocol="thesis"), DEFAULTS)
    assert config.num_removed == (0, *range(50, 501, 50), 600, 700)
    assert config.methods == ("trak", "ekfac", "random")
    assert config.seeds == (0, 1, 2)
    assert config.alignment.group_weights == "loss"
    assert config.ekfac.modules == ("classifier",)
    assert config.protocol == "thesis"
    assert config.selection.cell_floor == 0
    assert config.training.pairing == "independent"


def test_what_the_user_chose_stays():
    chosen = dataclasses.replace(DEFAULTS, num_removed=(7,), methods=("bm25",), protocol="thesis")
    config = follow_thesis(chosen, DEFAULTS)
    assert (config.num_removed, config.methods) == ((7,), ("bm25",))
    assert config.ekfac.modules == ("classifier",)
    chosen = dataclasses.replace(DEFAULTS, selection=SelectionConfig(cell_floor=3))
    assert follow_thesis(chosen, DEFAULTS).selection.cell_floor == 3


@pytest.mark.parametrize("default", ["margin", "loss"])
def test_it_explains_margins_whatever_the_default(default):
    defaults = dataclasses.replace(DEFAULTS, alignment=AlignmentConfig(target=default))
    for alignment in (defaults.alignment, AlignmentConfig(target="margin")):
        config = dataclasses.replace(defaults, protocol="thesis", alignment=alignment)
        assert follow_thesis(config, defaults).alignment == AlignmentConfig(target="margin", group_weights="loss")
    asked = dataclasses.replace(defaults, protocol="thesis", alignment=AlignmentConfig(target="probability"))
    with pytest.raises(InputError, match="--protocol thesis explains margins, received --target probability"):
        follow_thesis(asked, defaults)


def test_one_setting_that_the_user_chose_leaves_those_beside_it_to_the_thesis():
    chosen = dataclasses.replace(
        DEFAULTS,
        ekfac=EkfacConfig(damping=0.5, label_seed=3),
        selection=SelectionConfig(rounds=2),
        alignment=AlignmentConfig(target="margin"),
    )
    config = follow_thesis(chosen, DEFAULTS)
    assert config.ekfac == EkfacConfig(modules=("classifier",), damping=0.5, label_seed=3)
    assert config.selection == SelectionConfig(cell_floor=0, rounds=2)
    assert config.alignment == AlignmentConfig(target="margin", group_weights="loss")
    kept = dataclasses.replace(DEFAULTS, alignment=AlignmentConfig(group_weights="uniform"))
    assert follow_thesis(kept, DEFAULTS).alignment.group_weights == "uniform"


def test_a_sharpness_that_the_weights_of_the_thesis_have_not_is_refused():
    """What stands at its default cannot be told from what was chosen, so weights by softmax are left to the thesis."""
    sharp = dataclasses.replace(DEFAULTS, alignment=AlignmentConfig(beta=2.0))
    with pytest.raises(InputError, match=r"weighs the groups by their loss, .*received --beta 2.0: leave one out"):
        follow_thesis(sharp, DEFAULTS)


def test_each_corpus_has_its_numbers():
    toxigen = ExperimentConfig(Toxigen())
    assert follow_thesis(toxigen, toxigen).num_removed == THESIS_NUM_REMOVED["toxigen"]
    assert max(THESIS_NUM_REMOVED["toxigen"]) == 7000
    planted = ExperimentConfig(Planted(), num_removed=(0, 3))
    assert follow_thesis(planted, planted).num_removed == (0, 3)
