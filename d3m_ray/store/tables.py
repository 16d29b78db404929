"""The tables' columns and types, the same in every file, so that the files of a table always unify."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa


@dataclass(frozen=True)
class TableSpec:
    """What one table holds; `method` is no column of a file but the name of its folder."""

    schema: pa.Schema
    """The columns of every file; those not nullable hold neither null nor NaN."""
    by_method: bool = True
    """Whether files lie in `method=<name>/`."""
    added: tuple[str, ...] = ()
    """Nullable columns that files of earlier versions lack: read as null."""

    @property
    def key(self) -> str:
        """Name of the column that holds the file's key in every row."""
        return self.schema.names[0]


def _schema(columns: Mapping[str, pa.DataType], nullable: Collection[str] = ()) -> pa.Schema:
    return pa.schema([pa.field(name, dtype, nullable=name in nullable) for name, dtype in columns.items()])


_TEXT, _COUNT, _REAL, _TIME = pa.string(), pa.int64(), pa.float64(), pa.timestamp("us", tz="UTC")
_FEW_TEXTS = pa.dictionary(pa.int32(), pa.string())  # a text in very many rows: readers may take it as categories

_SUBSETS = ("keep_share", "subset_seeds", "fits_per_subset")
_FIT_AGREEMENT = (
    *("fit_correlation", "fit_correlation_low", "fit_correlation_high"),
    *("ceiling", "ceiling_low", "ceiling_high"),
)

TABLES: Mapping[str, TableSpec] = {
    "fits": TableSpec(
        _schema(
            {"fit_key": _TEXT, "split": _TEXT, "example_id": _TEXT, "group": _TEXT, "label": _COUNT}
            | {"margin": pa.float32(), "predicted": _COUNT, "probability": pa.float32()},
            nullable=("probability",),  # undefined where there are more than two labels
        ),
        by_method=False,
    ),
    "trials": TableSpec(
        _schema(
            {"trial_key": _TEXT, "fit_key": _TEXT, "experiment": _TEXT, "dataset": _TEXT, "model": _TEXT}
            | {
                "objective": _TEXT,
                "num_removed": _COUNT,
                "seed": _COUNT,
                "split": _TEXT,
                "group": _TEXT,
                "num_examples": _COUNT,
            }
            | {"accuracy": _REAL, "loss": _REAL, "fpr": _REAL, "fnr": _REAL, "auc": _REAL, "macro_f1": _REAL}
            | {"margin": _REAL, "soft_accuracy": _REAL}
            | {"train_seconds": _REAL, "num_train": _COUNT, "num_steps": _COUNT, "created_at": _TIME},
            # Some are undefined where the rows have one label only; of the last two see below.
            nullable=("fpr", "fnr", "auc", "macro_f1", "margin", "soft_accuracy"),
        ),
        added=("margin", "soft_accuracy"),
    ),
    "examples": TableSpec(
        _schema(
            {"data_hash": _TEXT, "split": _TEXT, "example_id": _TEXT, "group": _TEXT, "label": _COUNT}
            | {"label_name": _TEXT, "text": _TEXT},
            nullable=("text",),  # of train only, and not where the texts are not to be stored
        ),
        by_method=False,
    ),
    "alignments": TableSpec(
        _schema({"alignment_key": _TEXT, "example_id": _TEXT, "group": _TEXT, "label": _COUNT, "alignment": _REAL})
    ),
    "scores": TableSpec(
        _schema({"scores_key": _FEW_TEXTS, "example_id": _FEW_TEXTS, "query_set": _FEW_TEXTS, "score": pa.float32()})
    ),
    "query_scores": TableSpec(
        _schema({"scores_key": _FEW_TEXTS, "example_id": _FEW_TEXTS, "query_id": _FEW_TEXTS, "score": pa.float32()})
    ),
    "lds": TableSpec(
        _schema(
            {"lds_key": _TEXT, "experiment": _TEXT, "kind": _TEXT, "target": _TEXT}
            | {"lds": _REAL, "lds_low": _REAL, "lds_high": _REAL, "num_subsets": _COUNT, "scoring_seconds": _REAL}
            | {"keep_share": _REAL, "subset_seeds": _TEXT, "fits_per_subset": _COUNT}
            | dict.fromkeys(_FIT_AGREEMENT, _REAL),
            # Undefined where scores or outcomes are all alike, or there is one fit; of the others see below.
            nullable=("lds", "lds_low", "lds_high", *_SUBSETS, *_FIT_AGREEMENT),
        ),
        added=(*_SUBSETS, *_FIT_AGREEMENT),
    ),
    "removals": TableSpec(_schema({"trial_key": _TEXT, "example_id": _TEXT})),
    "failures": TableSpec(
        _schema(
            {"trial_key": _TEXT, "experiment": _TEXT, "num_removed": _COUNT, "seed": _COUNT}
            | {"error": _TEXT, "traceback": _TEXT, "created_at": _TIME},
            nullable=("num_removed",),  # null where the selection rule decides and had not yet
        )
    ),
}


def table_spec(table: str) -> TableSpec:
    """The table of this name. Raises ValueError where there is none."""
    if table not in TABLES:
        raise ValueError(f"a table is one of {', '.join(TABLES)}; received {table!r}")
    return TABLES[table]


def to_arrow(table: str, frame: pd.DataFrame) -> pa.Table:
    """The frame under the table's schema, columns in its order. Raises ValueError where it does not fit."""
    spec = table_spec(table)
    missing = [name for name in spec.schema.names if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in spec.schema.names]
    if missing or unknown:
        raise ValueError(f"{table} has the columns {spec.schema.names}; missing {missing}, unknown {unknown}")
    try:
        return pa.Table.from_pandas(frame, schema=spec.schema, preserve_index=False)
    except (pa.ArrowException, ValueError) as error:
        raise ValueError(f"a column of {table} lacks values or is not of its type: {error}") from error


def under_schema(table: str, content: pa.Table) -> pa.Table:
    """The columns of the table's schema; others, of an earlier layout, are left out.

    Raises ValueError where one that no version lacked is missing, or one lacks values or is of another type.
    """
    schema = table_spec(table).schema
    for name in table_spec(table).added:
        if name not in content.column_names:
            field = schema.field(name)
            content = content.append_column(field, pa.nulls(len(content), field.type))
    missing = [name for name in schema.names if name not in content.column_names]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}")
    try:
        return content.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def to_pandas(table: str, content: pa.Table) -> pd.DataFrame:
    """The content as a frame; whole numbers that may be missing come as Int64, not as floats."""
    frame = content.to_pandas(ignore_metadata=True)
    optional = [f.name for f in table_spec(table).schema if f.nullable and pa.types.is_integer(f.type)]
    return frame.astype({name: "Int64" for name in optional if name in frame})
