"""`--protocol thesis`: what the master's thesis that this package goes back to did, for comparison with its figures."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from d3m_ray.attribution.ekfac.settings import EkfacConfig
from d3m_ray.data.corpora import corpus_of
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.selection.settings import AlignmentConfig, SelectionConfig

Settings = TypeVar("Settings", ExperimentConfig, AlignmentConfig, EkfacConfig, SelectionConfig)

THESIS_NUM_REMOVED: Mapping[str, tuple[int, ...]] = {
    "toxigen": (0, 50, 100, 200, 300, 400, 500, 1000, 3000, 5000, 7000),
    "hatexplain": (0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700),
}
"""Its numbers of removed examples, by corpus; 0 is its base model."""

WARNING = (
    "warning: --protocol thesis aligns on the TEST set: what to remove is chosen by the labels and losses of the very "
    "examples that the result is measured on. Its figures are too good; they are for comparison with the thesis only."
)


def follow_thesis(config: ExperimentConfig, defaults: ExperimentConfig) -> ExperimentConfig:
    """The thesis's settings in the place of each that was left at the sweep's default, setting by setting.

    Its numbers removed, three runs, one checkpoint, margins explained, groups weighed by their loss, EK-FAC on the
    classifier layer alone, no cell floor, fits that share no batches, and TRAK, EK-FAC and random removal compared.
    That test stands in the place of val is told by `config.protocol`. Raises InputError where the user asked for
    another target, or for a setting that one of the thesis's leaves without effect.
    """
    _check_no_contradiction(config, defaults)
    thesis: Mapping[str, Any] = {
        "methods": ("trak", "ekfac", "random"),
        "num_removed": THESIS_NUM_REMOVED.get(corpus_of(config.corpus).name, defaults.num_removed),
        "seeds": (0, 1, 2),
        "num_checkpoints": 1,
        "alignment": {"target": "margin", "group_weights": "loss"},
        "ekfac": {"modules": ("classifier",)},
        "selection": {"cell_floor": 0},
        "training": {"pairing": "independent"},
    }
    return _where_untouched(config, defaults, thesis)


def _check_no_contradiction(config: ExperimentConfig, defaults: ExperimentConfig) -> None:
    alignment, default = config.alignment, defaults.alignment
    if alignment.target not in (default.target, "margin"):
        raise InputError(f"--protocol thesis explains margins, received --target {alignment.target}: leave one out")
    if alignment.group_weights == default.group_weights and alignment.beta != default.beta:
        raise InputError(
            "--protocol thesis weighs the groups by their loss, not by its softmax, received --beta "
            f"{alignment.beta}: leave one out"
        )


def _where_untouched(config: Settings, defaults: Settings, values: Mapping[str, Any]) -> Settings:
    """The settings with the values in the place of those that are as in `defaults`; a mapping is of a group's own."""
    changes = {}
    for name, value in values.items():
        ours, default = getattr(config, name), getattr(defaults, name)
        if isinstance(value, Mapping):
            changes[name] = _where_untouched(ours, default, value)
        elif ours == default:
            changes[name] = value
    return dataclasses.replace(config, **changes)
