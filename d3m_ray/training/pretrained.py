"""A classifier before fine-tuning, as plain values: numpy only, so that it is known without loading torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from d3m_ray.keys import content_hash
from d3m_ray.records import read_only


@dataclass(frozen=True, eq=False)
class PretrainedModel:
    """A classifier before fine-tuning, as plain values from which a worker builds it."""

    name: str
    config: Mapping[str, Any]
    """The transformers configuration as a dictionary, `model_type` included."""
    weights: Mapping[str, np.ndarray]
    """State dictionary, float32 numpy arrays, read-only."""
    new_modules: tuple[str, ...]
    """Modules that the pretrained weights lack (the head): drawn again from the seed of each fit."""
    warnings: tuple[str, ...] = ()
    """What a person should know of how it was loaded, a sentence each; enters no hash."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", {name: read_only(array) for name, array in self.weights.items()})

    def content_hash(self) -> str:
        """Hash of the configuration and of the weights; the name does not enter."""
        config = {
            key: value for key, value in self.config.items() if key not in ("_name_or_path", "transformers_version")
        }
        arrays = (part for key in sorted(self.weights) for part in (key, self.weights[key].tobytes()))
        return content_hash(json.dumps(config, sort_keys=True, default=str), *self.new_modules, *arrays)
