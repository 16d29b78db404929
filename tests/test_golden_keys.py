"""The keys of fixed results, to the digit: a store that lives for years must find what it holds.

A key that changes here makes every stored result of its kind be computed again. Where that is meant, because the same
settings now give another result, raise the stage's version, and say so in the CHANGELOG.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from d3m_ray.attribution.metagradient.settings import MetagradientConfig
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.keys import alignment_key, group_scores_key, scores_key
from d3m_ray.records import Examples, Splits
from d3m_ray.selection.settings import AlignmentConfig
from d3m_ray.store.store import Store
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.trial import TrialContext

GOLDEN = {
    "data": "7cdda8bfc55180a37d8f",
    "fit of everything": "71982b00b80179b46bbf",
    "fit of everything, independent": "71982b00b80179b46bbf",
    "fit without two": "27b4fab9dd55fbd2fe4a",
    "fit without two, independent": "88e2577fa7a990f7086f",
    "fit, Group DRO": "a4561d1f7a10ae2c2694",
    "fit, JTT": "c6b8a882e9a89ba293ba",
    "fit with warm-up": "6581c41b66d4fabbf13c",
    "trial": "ac6f4b775f62f5c200f6",
    "trial of a draw": "e566a75164b15941829d",
    "scores, trak": "ad0a22686fce0af4e6f2",
    "scores, ekfac": "471facb9158f4bdce4da",
    "scores, metagradient": "0f6a7624bf8df363f470",
    "scores, random": "f0a8d4279db7fd0b71e7",
    "scores, metagradient per group": "4810f8e6755e36ba04b1",
    "scores, trak by margin": "68fdb972b89b4512d8bb",
    "scores, pseudo-groups": "4850688d6a68ca024c79",
    "alignment, trak": "01d3c83c8820b474c600",
    "alignment, trak by margin": "192d5aaff64ce074fd6c",
    "alignment, second round": "18b487d21888b331d3c7",
}


def examples(split: str, num_examples: int) -> Examples:
    positions = np.arange(num_examples)
    return Examples(
        split=split,
        example_ids=np.array([f"{split}/{position}" for position in positions]),
        texts=tuple(f"the {split} harbour, seen {position} times" for position in positions),
        labels=positions % 2,
        groups=positions // 2 % 2,
    )


SPLITS = Splits(
    name="made_up",
    train=examples("train", 12),
    val=examples("val", 6),
    test=examples("test", 6),
    group_names=("amber", "teal"),
)
CONFIG = ExperimentConfig(Planted(), model="tiny", num_checkpoints=2)
SOME = np.array([3, 5])


def context(root: Path, **training: object) -> TrialContext:
    return TrialContext(
        experiment="golden",
        store=Store(root),
        splits=SPLITS,
        tokens={},
        pretrained=None,  # type: ignore[arg-type]
        training=TrainingConfig(precision="float32", **training),  # type: ignore[arg-type]
        robust=CONFIG.robust,
        data_hash=SPLITS.content_hash(),
        model_hash="0123456789abcdef0123",
    )


def keys(root: Path) -> dict[str, str]:
    plain, independent = context(root), context(root, pairing="independent")
    by_margin = dataclasses.replace(CONFIG, alignment=AlignmentConfig(target="margin"))
    per_group = dataclasses.replace(CONFIG, metagradient=MetagradientConfig(per_group=True))
    return {
        "data": SPLITS.content_hash(),
        "fit of everything": plain.fit_key(SOME[:0], 0),
        "fit of everything, independent": independent.fit_key(SOME[:0], 0),
        "fit without two": plain.fit_key(SOME, 0),
        "fit without two, independent": independent.fit_key(SOME, 0),
        "fit, Group DRO": plain.fit_key(SOME[:0], 0, "group_dro"),
        "fit, JTT": plain.fit_key(SOME[:0], 0, "jtt"),
        "fit with warm-up": context(root, warmup_share=0.1).fit_key(SOME[:0], 0),
        "trial": plain.trial_key("a fit", "trak", 2),
        "trial of a draw": plain.trial_key("a fit", "random", 2, draw=1_000_001),
        **{f"scores, {name}": scores_key(name, CONFIG, plain) for name in ("trak", "ekfac", "metagradient", "random")},
        "scores, metagradient per group": scores_key("metagradient", per_group, plain),
        "scores, trak by margin": scores_key("trak", by_margin, plain),
        "scores, pseudo-groups": group_scores_key("trak_auto", CONFIG, plain),
        "alignment, trak": alignment_key("trak", CONFIG, plain),
        "alignment, trak by margin": alignment_key("trak", by_margin, plain),
        "alignment, second round": alignment_key("trak", CONFIG, plain, SOME),
    }


@pytest.mark.parametrize("name", GOLDEN)
def test_the_key_is_as_it_was(name: str, tmp_path: Path) -> None:
    assert keys(tmp_path)[name] == GOLDEN[name]


def test_every_key_is_pinned_and_its_own(tmp_path: Path) -> None:
    found = keys(tmp_path)
    assert found == GOLDEN
    of_everything = {found.pop("fit of everything"), found.pop("fit of everything, independent")}
    assert len(of_everything) == 1, "nothing is left out, so there is nothing to pair"
    assert len({*found.values(), *of_everything}) == len(found) + 1
