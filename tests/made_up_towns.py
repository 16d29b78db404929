"""A corpus that a plug-in might bring, and the settings of a run that takes a second or two."""

from pathlib import Path
from typing import Any

import pandas as pd

from d3m_ray.data.checks import make_splits
from d3m_ray.records import Splits
from d3m_ray.training.settings import TrainingConfig

SMALL_RUN: dict[str, Any] = {
    "model": "tiny",
    "num_removed": (0, 6),
    "seeds": (0, 1),
    "training": TrainingConfig(num_epochs=1, learning_rate=1e-3, final_model="last"),
}


def make_towns(options: Any, folder: Path | None) -> Splits:
    """Towns, fine or grey."""
    return make_splits("some towns", {split: _rows(split, size) for split, size in SIZES.items()})


SIZES = {"train": 48, "val": 16, "test": 16}


def _rows(split: str, size: int) -> pd.DataFrame:
    """Two groups and two labels, as many of each."""
    numbers = range(size)
    return pd.DataFrame(
        {
            "example_id": [f"{split}/{number}" for number in numbers],
            "text": [f"{split} town {number} is {'fine' if number % 2 else 'grey and small'}" for number in numbers],
            "label": [number % 2 for number in numbers],
            "group": [("east", "west")[number // 2 % 2] for number in numbers],
        }
    )
