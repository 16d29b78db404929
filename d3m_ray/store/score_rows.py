"""Attribution scores as rows of a table, one per train example and column, and back; exact, and fast at ten million.

Shapes: N train examples, S columns (query sets or single queries). Rows go through the examples in train order, and
through the columns within each, so that reading back is a reshape.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from d3m_ray.store.tables import table_spec

Names = Sequence[str] | np.ndarray


def scores_to_rows(table: str, key: str, scores: np.ndarray, example_ids: Names, column_names: Names) -> pa.Table:
    """The table of scores [N, S] under the table's schema. Raises ValueError where shapes differ or a score is NaN."""
    num_examples, num_columns = len(example_ids), len(column_names)
    if scores.shape != (num_examples, num_columns) or not np.isfinite(scores).all():
        raise ValueError(
            f"{table} are finite numbers [{num_examples}, {num_columns}], one per example and name; received "
            f"{scores.shape}, {np.count_nonzero(~np.isfinite(scores))} not finite"
        )
    columns = [
        _encoded(np.zeros(scores.size, dtype=np.int32), [key]),
        _encoded(np.repeat(np.arange(num_examples, dtype=np.int32), num_columns), example_ids),
        _encoded(np.tile(np.arange(num_columns, dtype=np.int32), num_examples), column_names),
        pa.array(np.ascontiguousarray(scores, dtype=np.float32).ravel()),
    ]
    return pa.Table.from_arrays(columns, schema=table_spec(table).schema)


def scores_from_rows(content: pa.Table, example_ids: Names, column_names: Names) -> np.ndarray:
    """[N, S] float32 scores. Raises ValueError where the rows are not those of these examples and names, in order."""
    shape = (len(example_ids), len(column_names))
    _, example_column, name_column, score_column = content.columns
    if content.num_rows != shape[0] * shape[1]:
        raise ValueError(f"{content.num_rows} rows, expected {shape[0]} times {shape[1]}")
    examples, names = (_decoded(column) for column in (example_column, name_column))
    for (places, dictionary), axis, expected in ((examples, 0, example_ids), (names, 1, column_names)):
        grid = places.reshape(shape)
        first = grid.take(0, axis=1 - axis)
        if (grid != np.expand_dims(first, 1 - axis)).any() or dictionary[first].tolist() != list(expected):
            raise ValueError("rows are not in train order, or of other examples")
    return score_column.to_numpy().reshape(shape)


def _encoded(places: np.ndarray, names: Names) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(places, pa.array(list(names), type=pa.string()))


def _decoded(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Each row's place in the array of distinct values, and these."""
    whole = column.unify_dictionaries().combine_chunks()
    return whole.indices.to_numpy(zero_copy_only=False), whole.dictionary.to_numpy(zero_copy_only=False)
