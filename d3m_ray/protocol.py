"""`--protocol thesis`: what the master's thesis that this package goes back to did, for comparison with its figures."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from d3m_ray.config import ExperimentConfig
from d3m_ray.data import CORPORA
from d3m_ray.errors import InputError

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
    """The thesis's settings in the place of each that was left at the sweep's default.

    Its numbers removed, three runs, one checkpoint, groups weighed by their loss, EK-FAC on the classifier layer alone,
    no cell floor, and TRAK, EK-FAC and random removal compared. That test stands in the place of val is told by
    `config.protocol`. It knew margins only: the target is the margin whatever the sweep's default is. Raises InputError
    where the user asked for another.
    """
    if config.alignment.target not in (defaults.alignment.target, "margin"):
        raise InputError(
            f"--protocol thesis explains margins, received --target {config.alignment.target}: leave one out"
        )
    config, defaults = (
        dataclasses.replace(each, alignment=dataclasses.replace(each.alignment, target="margin"))
        for each in (config, defaults)
    )
    thesis: dict[str, Any] = {
        "methods": ("trak", "ekfac", "random"),
        "num_removed": THESIS_NUM_REMOVED.get(CORPORA[type(config.corpus_options)], defaults.num_removed),
        "seeds": (0, 1, 2),
        "num_checkpoints": 1,
        "alignment": dataclasses.replace(config.alignment, group_weights="loss"),
        "ekfac": dataclasses.replace(config.ekfac, modules=("classifier",)),
    }
    untouched = {name: value for name, value in thesis.items() if getattr(config, name) == getattr(defaults, name)}
    selection = config.selection
    if selection.cell_floor == defaults.selection.cell_floor:
        untouched["selection"] = dataclasses.replace(selection, cell_floor=0)
    return dataclasses.replace(config, **untouched)
