"""What the store has of a fit: what it says of val and test, and what it was trained with."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from d3m_ray.records import Examples, Predictions
from d3m_ray.store.store import Store
from d3m_ray.store.tables import to_arrow, to_pandas


@dataclass(frozen=True, eq=False)
class StoredFit:
    """What the store has of a fit, read or just written."""

    rows: pd.DataFrame
    """As `Store.read` gives them."""
    configuration: Mapping[str, Any]
    """Of its metadata: JSON values."""

    def predictions(self, examples: Examples) -> Predictions:
        """What it says of the val or test examples, in their order."""
        rows = self.rows[self.rows["split"] == examples.split].set_index("example_id").loc[examples.example_ids]
        return Predictions(*(rows[name].to_numpy() for name in ("label", "margin", "predicted", "probability")))


def read_fit(store: Store, fit_key: str) -> StoredFit:
    """The fit of this key. Raises StoreError where it is not stored, or damaged."""
    return StoredFit(store.read("fits", fit_key), store.read_metadata("fits", fit_key)["configuration"])


def as_stored(rows: pd.DataFrame, configuration: Mapping[str, Any]) -> StoredFit:
    """What `read_fit` would give of rows and a configuration that were just written, without reading them."""
    return StoredFit(to_pandas("fits", to_arrow("fits", rows)), json.loads(json.dumps(configuration)))


def stored_predictions(store: Store, fit_key: str, examples: Examples) -> Predictions:
    """What a stored fit says of the val or test examples, in their order."""
    return StoredFit(store.read("fits", fit_key), {}).predictions(examples)
