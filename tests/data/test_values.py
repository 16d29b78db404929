"""Columns as texts, words and numbers, whatever the type in which a file holds them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from d3m_ray.data.checks import Table
from d3m_ray.data.tables import read_parquet
from d3m_ray.data.values import canonical, numbers_of, words_of

SCORES = [0.7, 0.69, 0.1, 1e-05, 1.0, float("nan")]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "Float32", "Float64"])
@pytest.mark.parametrize("as_categories", [False, True])
def test_a_short_float_is_the_decimal_that_was_written(dtype: str, as_categories: bool, tmp_path: Path) -> None:
    column = pd.Series(SCORES).astype(dtype)
    if as_categories and dtype != "float16":  # which Arrow's dictionaries do not take
        column = column.astype("category")
    pd.DataFrame({"score": column}).to_parquet(tmp_path / "a.parquet")
    table = read_parquet(tmp_path / "a.parquet", ["score"])
    numbers = numbers_of(table, "score").to_numpy()
    np.testing.assert_array_equal(numbers[[0, 1, 2, 4, 5]], np.array(SCORES)[[0, 1, 2, 4, 5]])
    assert numbers[3] == float(str(np.dtype(dtype.lower()).type(1e-05)))
    assert words_of(table, "score").tolist()[:3] == ["0.7", "0.69", "0.1"]
    assert words_of(table, "score").tolist()[4:] == ["1", None]


@pytest.mark.parametrize("as_dictionary", [False, True])
@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_whole_numbers_beside_a_null_stay_whole(kind: pa.DataType, as_dictionary: bool, tmp_path: Path) -> None:
    ids = pa.array([2**53 + 1, 2**53 + 2, None, 0], kind)
    parquet.write_table(pa.table({"id": ids.dictionary_encode() if as_dictionary else ids}), tmp_path / "a.parquet")
    words = words_of(read_parquet(tmp_path / "a.parquet", ["id"]), "id")
    assert words.tolist() == ["9007199254740993", "9007199254740994", None, "0"]


def test_a_whole_number_of_any_length_is_written_shortest() -> None:
    written = {"1.0": "1", "+1": "1", "-0": "0", "-0.00": "0", "-7.0": "-7", " 1": "1", "007": "007", "1.5": "1.5"}
    assert {word: canonical(word) for word in written} == written
    digits = "1" * 5000
    assert canonical(f"{digits}.0") == digits
    assert words_of(Table("a", pd.DataFrame({"id": [f" +{digits} "]})), "id").tolist() == [digits]
