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

from d3m_ray.data.checks import UNSTORABLE, Table

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
    rule, mend = f"{column} holds words of one line or finite numbers", "write it as one, or leave the row out"
    return _converted(table, column, _as_word, rule, mend)


def numbers_of(table: Table, column: str) -> pd.Series:
    """The column as float64, true and false as 1 and 0, NaN where blank. Raises DataError at what is no number."""
    rule, mend = f"{column} holds finite numbers", "write it as one, or leave it blank"
    return _converted(table, column, _as_number, rule, mend).astype("float64")


def canonical(word: str) -> str:
    """The word, or the whole number that it writes, as it is written shortest: 1 for 1.0."""
    return str(int(word.partition(".")[0])) if INTEGER.fullmatch(word) else word


def is_whole(word: str) -> bool:
    """Whether a word is a whole number."""
    return INTEGER.fullmatch(word) is not None


def is_number(word: str) -> bool:
    """Whether a word that `words_of` gave is a number."""
    return NUMBER.fullmatch(word) is not None


def _converted(table: Table, column: str, convert: Callable[[Any], Any], rule: str, mend: str) -> pd.Series:
    """Each value converted; a ValueError means that it is refused."""
    values = pd.Series(table.frame[column].tolist(), index=table.frame.index, dtype=object)
    converted: list[Any] = []
    wrong = np.zeros(len(values), dtype=bool)
    for row, value in enumerate(values):
        try:
            converted.append(None if _is_missing(value) else convert(value))
        except ValueError:
            wrong[row] = True
            converted.append(None)
    table.refuse(pd.Series(wrong, index=values.index), rule, mend, values)
    return pd.Series(converted, index=values.index, dtype=object)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _as_text(value: object) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8")
    if not isinstance(value, str) or UNSTORABLE.search(value):
        raise ValueError("not a text")
    return value if value.strip() else None


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
