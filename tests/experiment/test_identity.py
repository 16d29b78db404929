"""Which results each setting is part of: a new one has to be put into the table, and the table is held by the keys."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

from d3m_ray.attribution.registry import METHODS
from d3m_ray.data.planted import Planted
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.keys import alignment_key, scores_key
from d3m_ray.records import Examples, Splits
from d3m_ray.selection.settings import AlignmentConfig
from d3m_ray.store.store import Store
from d3m_ray.training.precision import resolved_precision
from d3m_ray.training.registry import RECIPES
from d3m_ray.training.settings import TrainingConfig
from d3m_ray.trials.trial import TrialContext

FIT = "every fit, and what is made from fits"
REMOVAL = "fits that something is left out of"
SCORES = "every score"
ALIGNMENT = "alignments, and scores of the weighed groups"
NONE = "nothing"

ENTERS = {
    "data": NONE,  # by its content: the hash of the splits
    "model": NONE,  # by its content
    "store": NONE,
    "store_texts": NONE,
    "methods": NONE,
    "num_removed": NONE,  # by the ids that an arm removes
    "seeds": NONE,  # a fit's own seed is part of its key
    "num_checkpoints": SCORES,
    "skip_unsupported": NONE,
    "protocol": SCORES,
    "experiment": NONE,
    "figures": NONE,
    "tensorboard": NONE,
    "mlflow": NONE,
    **{f"training.{field.name}": FIT for field in dataclasses.fields(TrainingConfig)},
    "training.pairing": REMOVAL,
    "training.step_matched": REMOVAL,
    "robust.dro_step_size": "fits of group_dro",
    "robust.jtt_first_epochs": "fits of jtt",
    "robust.jtt_upweight": "fits of jtt",
    "robust.dfr_data": "fits of dfr",
    "robust.dfr_inverse_l2": "fits of dfr",
    "trak.projection_dim": "scores of gradcos, trak, traker",
    "trak.damping": "scores of trak, traker",
    "trak.projection_seed": "scores of gradcos, trak, traker",
    "ekfac.modules": "scores of ekfac, kronfluence",
    "ekfac.damping": "scores of ekfac, kronfluence",
    "ekfac.label_seed": "scores of ekfac, kronfluence",
    "metagradient.per_group": "scores of metagradient, tracin",
    "alignment.group_weights": ALIGNMENT,
    "alignment.beta": ALIGNMENT,
    "alignment.target": "scores that read queries, and every alignment",
    "alignment.worst_loss_beta": ALIGNMENT,
    "selection.cell_floor": NONE,  # by the ids that an arm removes
    "selection.rounds": NONE,  # by the ids that earlier rounds removed
    "execution.engine": NONE,
    "execution.address": NONE,
    "execution.num_workers": NONE,
    "execution.gpus_per_worker": SCORES,
    "execution.gpus_per_trial": FIT,
    "execution.cpus_per_trial": NONE,
    "execution.max_wait_seconds": NONE,
    "execution.stop_on_usr1": NONE,
    "execution.debug": NONE,
}
OTHERWISE = {
    "data": Path("elsewhere"),
    "model": "another",
    "methods": ("random",),
    "num_removed": (0, 7),
    "seeds": (5,),
    "experiment": "named",
    "figures": Path("figures"),
    "tensorboard": Path("events"),
    "mlflow": "runs",
    "training.precision": "bfloat16",
    "ekfac.modules": ("encoder",),
    "selection.cell_floor": 5,
    "execution.address": "local",
    "execution.num_workers": 3,
}
GIVEN = {  # where a setting has an effect at all
    "alignment.worst_loss_beta": {"alignment": AlignmentConfig(target="worst_loss")},
    "training.step_matched": {"training": TrainingConfig(precision="float32", pairing="independent")},
}
NOTHING, SOME = np.zeros(0, dtype=np.int64), np.array([1, 2])


def settings(config: Any, before: str = "") -> Iterator[str]:
    """Every setting's path: `trak.damping`. The corpus's own options enter by the splits that they make; those of
    plug-ins' methods enter the keys of their scores, see test_plugins.py.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            if field.name != "corpus":
                yield from settings(value, f"{before}{field.name}.")
        elif field.name != "plugins":
            yield before + field.name


def changed(config: ExperimentConfig, path: str) -> ExperimentConfig:
    *folders, name = path.split(".")
    holder = getattr(config, folders[0]) if folders else config
    other = OTHERWISE.get(path) or another(holder, name)
    holder = dataclasses.replace(holder, **{name: other})
    return dataclasses.replace(config, **{folders[0]: holder}) if folders else holder


def another(holder: Any, name: str) -> Any:
    value, hint = getattr(holder, name), get_type_hints(type(holder))[name]
    choices = get_args(hint)
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next(choice for choice in choices if choice != value) if choices else f"{value}-otherwise"
    return value + 1 if isinstance(value, int) else value / 2 + 0.25


def examples(split: str) -> Examples:
    positions = np.arange(6)
    ids = np.array([f"{split}/{position}" for position in positions])
    return Examples(split, ids, tuple(f"{split} {position}" for position in positions), positions % 2, positions // 3)


def keys(config: ExperimentConfig, root: Path) -> dict[str, str]:
    by_name = {split: examples(split) for split in ("train", "val", "test")}
    splits = Splits(name="made_up", group_names=("amber", "teal"), **by_name)
    device = config.execution.trial_device
    precision = resolved_precision(config.training.precision, device)
    training = dataclasses.replace(config.training, precision=precision)
    context = TrialContext(
        *("an experiment", Store(root), splits, {}, None, training, config.robust),  # type: ignore[arg-type]
        data_hash="data",
        model_hash="model",
        device=device,
    )
    return {
        "fit": context.fit_key(NOTHING, 0),
        "fit without some": context.fit_key(SOME, 0),
        **{f"fit of {name}": context.fit_key(NOTHING, 0, name) for name in RECIPES},
        **{f"scores of {name}": scores_key(name, config, context) for name in METHODS},
        **{f"alignment of {name}": alignment_key(name, config, context) for name in METHODS},
    }


def told(moved: set[str], every: set[str]) -> str:
    """The words of the table for the keys that moved."""
    scores = {name.removeprefix("scores of ") for name in moved if name.startswith("scores")}
    fits = {name.removeprefix("fit of ") for name in moved if name.startswith("fit of")}
    alignments = {name for name in every if name.startswith("alignment")}
    if moved == every:
        return FIT
    if moved == {"fit without some"}:
        return REMOVAL
    if fits:
        return f"fits of {', '.join(sorted(fits))}" if not scores else "no kind of the table"
    if not moved:
        return NONE
    if scores == set(METHODS):
        return SCORES
    if alignments <= moved:
        reading = {name for name, method in METHODS.items() if method.reads_queries}
        if scores == reading:
            return "scores that read queries, and every alignment"
        return ALIGNMENT if scores == {"metagradient", "tracin"} else "no kind of the table"
    return f"scores of {', '.join(sorted(scores))}"


PLAIN = ExperimentConfig(Planted(), model="tiny", training=TrainingConfig(precision="float32"))


def test_every_setting_is_in_the_table() -> None:
    assert set(settings(PLAIN)) == set(ENTERS)


@pytest.mark.parametrize("path", ENTERS)
def test_a_setting_enters_the_keys_that_the_table_says(path: str, tmp_path: Path) -> None:
    config = dataclasses.replace(PLAIN, **GIVEN.get(path, {}))
    before, after = keys(config, tmp_path), keys(changed(config, path), tmp_path)
    assert told({name for name in before if before[name] != after[name]}, set(before)) == ENTERS[path]
