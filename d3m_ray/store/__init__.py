"""The Parquet store: one file per result, named by the key of what produced it."""

from d3m_ray.store.files import StoreError
from d3m_ray.store.store import Experiment, PlannedTrial, Store
from d3m_ray.store.tables import SCORE_PREFIX, TABLES, TableSpec

__all__ = ["SCORE_PREFIX", "TABLES", "Experiment", "PlannedTrial", "Store", "StoreError", "TableSpec"]
