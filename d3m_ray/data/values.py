"""A column of a table as texts, words or numbers, whatever types its file had; what is of another kind is refused.

A value that is missing or blank is None, or NaN among numbers: its place and what becomes of the row are the caller's.
"""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.data.checks import UNSTORABLE, Table, reading_key

INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)(\.0+)?")  # 007 is a word
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
NO_WORDS = {"nan", "<na>", "nat", "inf", "-inf"}  # what pandas writes for a value that is not there, and no number
TRUTHS = {"true": 1.0, "false": 0.0}


def texts_of(table: Table, column: str) -> pd.Series:
    """The column as strings, bytes decoded, None where blank. Raises DataError at a value that is no text."""
    return _converted(table, column, _as_text, f"{column} holds texts in Unicode without NUL", "write it as one")


def words_of(table: Table, column: str) -> pd.Series:
    """The column as words without outer white space, whole numbers as `1` however written, None where blank.

    Raises DataError at a value that is neither a word, of one line, nor a finite number.
    """
    rule, fix = f"{column} holds words of one line or finite numbers", "write it as one, or leave the row out"
    return _converted(table, column, _as_word, rule, fix)


def numbers_of(table: Table, column: str) -> pd.Series:
    """The column as float64, true and false as 1 and 0, NaN where blank. Raises DataError at what is no number."""
    rule, fix = f"{column} holds finite numbers", "write it as one, or leave it blank"
    return _converted(table, column, _as_number, rule, fix).astype("float64")


def canonical(word: str) -> str:
    """The word without outer white space, or the whole number that it writes, as written shortest: 1 for 1.0."""
    word = word.strip()
    if not INTEGER.fullmatch(word):
        return word
    whole = word.partition(".")[0].lstrip("+")  # not by int, which takes some thousand digits only
    return "0" if whole == "-0" else whole


def is_whole(word: str) -> bool:
    """Whether a word is a whole number."""
    return INTEGER.fullmatch(word) is not None


def is_number(word: str) -> bool:
    """Whether a word that `words_of` gave is a number."""
    return NUMBER.fullmatch(word) is not None


def _converted(table: Table, column: str, convert: Callable[[Any], Any], rule: str, fix: str) -> pd.Series:
    """Each value converted; a ValueError means that it is refused."""
    values = pd.Series(_scalars(table.frame[column]), index=table.frame.index, dtype=object)
    converted: list[Any] = []
    wrong = np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values):
        try:
            converted.append(None if _is_missing(value) else convert(value))
        except ValueError:
            wrong[row] = True
            converted.append(None)
    table.refuse(pd.Series(wrong, index=values.index), rule, fix, values)
    return pd.Series(converted, index=values.index, dtype=object)


def _scalars(column: pd.Series) -> list[Any]:
    """The values as Python's, but short floats as they are: 0.7 of float32 is written 0.7, as a float64 otherwise."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = [*_scalars(column.cat.categories.to_series()), None]  # whose code is -1
        return [categories[code] for code in column.cat.codes]
    is_short = pd.api.types.is_float_dtype(column.dtype) and column.dtype != np.float64
    return list(column.array) if is_short else column.tolist()


def _is_missing(value: object) -> bool:
    if isinstance(value, float | np.floating):
        return math.isnan(float(value))
    return value is None or value is pd.NA or value is pd.NaT


def _as_text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str) or UNSTORABLE.search(value):
        raise ValueError("not a text")
    return value if reading_key(value) else None


def _as_word(value: object) -> str | None:
    return _read_word(value) if isinstance(value, str) else _word(value)


def _word(value: object) -> str | None:
    word = _as_text(str(value) if isinstance(value, bool | int | float | Decimal | np.number | np.bool_) else value)
    if word is None:
        return None
    word = word.strip()
    if word.casefold() in NO_WORDS or len(word.splitlines()) > 1:
        raise ValueError("not a word")
    return canonical(word)


def _as_number(value: object) -> float | None:
    return _read_number(value) if isinstance(value, str) else _number(value)


def _number(value: object) -> float | None:
    word = _word(value)
    if word is None:
        return None
    if word.casefold() in TRUTHS:
        return TRUTHS[word.casefold()]
    number = float(word) if is_number(word) else math.nan
    if not math.isfinite(number):
        raise ValueError("not a number")
    return number


_read_word = lru_cache(_word)  # a column has few different ones
_read_number = lru_cache(_number)
