"""Attribution scores as rows of a table, one per train example and column, and back; exact, and fast at ten million.

Shapes: N train examples, S columns (query sets or single queries). Rows go through the examples in train order, and
through the columns within each, so that reading back is a reshape.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from d3m_ray.store.tables import table_spec

Names = Sequence[str] | np.ndarray

PART_ROWS = 2**20  # of scores that are rows at once: three columns of places for each would outgrow the scores


def scores_to_rows(
    table: str, key: str, scores: np.ndarray, example_ids: Names, column_names: Names
) -> Iterator[pa.Table]:
    """The table of scores [N, S] under the table's schema, a few examples after others.

    Raises ValueError where shapes differ or a score is NaN, before the first.
    """
    num_examples, num_columns = len(example_ids), len(column_names)
    if scores.shape != (num_examples, num_columns) or not np.isfinite(scores).all():
        raise ValueError(
            f"{table} are finite numbers [{num_examples}, {num_columns}], one per example and name; received "
            f"{scores.shape}, {np.count_nonzero(~np.isfinite(scores))} not finite"
        )
    size = max(1, PART_ROWS // max(1, num_columns))
    return (
        _rows(table, key, scores[start : start + size], example_ids[start : start + size], column_names)
        for start in range(0, num_examples, size)
    )


def _rows(table: str, key: str, scores: np.ndarray, example_ids: Names, column_names: Names) -> pa.Table:
    num_examples, num_columns = scores.shape
    columns = [
        _encoded(np.zeros(scores.size, dtype=np.int32), [key]),
        _encoded(np.repeat(np.arange(num_examples, dtype=np.int32), num_columns), example_ids),
        _encoded(np.tile(np.arange(num_columns, dtype=np.int32), num_examples), column_names),
        pa.array(np.ascontiguousarray(scores, dtype=np.float32).ravel()),
    ]
    return pa.Table.from_arrays(columns, schema=table_spec(table).schema)


def scores_from_rows(parts: Iterable[pa.Table], example_ids: Names, column_names: Names) -> np.ndarray:
    """[N, S] float32 scores. Raises ValueError where the rows are not those of these examples and names, in order."""
    num_columns = len(column_names)
    scores = np.empty(len(example_ids) * num_columns, dtype=np.float32)
    codes = [{name: place for place, name in enumerate(names)} for names in (example_ids, column_names)]
    start = 0
    for part in parts:
        stop = start + part.num_rows
        if stop > len(scores):
            raise ValueError(f"{stop} rows or more, expected {len(example_ids)} times {num_columns}")
        _, example_column, name_column, score_column = part.columns
        expected = np.divmod(np.arange(start, stop), max(1, num_columns))
        for column, code, places in zip((example_column, name_column), codes, expected, strict=True):
            if (_codes(column, code) != places).any():
                raise ValueError("rows are not in train order, or of other examples")
        scores[start:stop] = score_column.to_numpy()
        start = stop
    if start != len(scores):
        raise ValueError(f"{start} rows, expected {len(example_ids)} times {num_columns}")
    return scores.reshape(len(example_ids), num_columns)


def _encoded(places: np.ndarray, names: Names) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(places, pa.array(list(names), type=pa.string()))


def _codes(column: pa.ChunkedArray, code: Mapping[str, int]) -> np.ndarray:
    """Each row's value as its code, -1 where it has none."""
    whole = column.unify_dictionaries().combine_chunks()
    of_values = np.array([code.get(value, -1) for value in whole.dictionary.to_pylist()], dtype=np.int64)
    codes: np.ndarray = of_values[whole.indices.to_numpy(zero_copy_only=False)]
    return codes
