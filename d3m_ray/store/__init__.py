"""The Parquet store: one file per result, named by the key of what produced it."""

from d3m_ray.store.experiments import Experiment, PlannedTrial
from d3m_ray.store.files import DamagedError, StoreError, check_writable_folder, expanded, refused, write_file
from d3m_ray.store.provenance import Provenance, current_provenance
from d3m_ray.store.store import Store
from d3m_ray.store.tables import TABLES, TableSpec

__all__ = [
    "TABLES",
    "DamagedError",
    "Experiment",
    "PlannedTrial",
    "Provenance",
    "Store",
    "StoreError",
    "TableSpec",
    "check_writable_folder",
    "current_provenance",
    "expanded",
    "refused",
    "write_file",
]
