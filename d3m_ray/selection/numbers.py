"""Numbers removed: counts and shares of train, and how rounds divide them."""

import re
from collections.abc import Sequence
from itertools import pairwise

from d3m_ray.errors import InputError
from d3m_ray.rules import check


def check_removals(numbers: Sequence[int | str]) -> None:
    """Raises InputError at the first of --num-removed that is neither a count nor a share, with what was meant."""
    check(bool(numbers), "--num-removed is one or more counts, or shares of train", numbers)
    rule = "each of --num-removed is a count from 0, or a share of train below 100%, such as 5%"
    for number in numbers:
        if not is_removal(number):
            blanks = " ".join(str(number).replace(",", " ").split())
            fix = f"; a list is separated by blanks, not commas: {blanks}" if "," in str(number) else ""
            if re.fullmatch(r"0?\.\d+", str(number)):
                fix = f"; did you mean {100 * float(number):g}%?"
            raise InputError(f"{rule}, received {number!r}{fix}")


SHARE = re.compile(r"[0-9]+(\.[0-9]+)?%")


def is_removal(number: int | str) -> bool:
    """Whether a number removed is a count from 0, or a share of train below 100% such as `5%`."""
    if isinstance(number, str):
        return SHARE.fullmatch(number) is not None and float(number.removesuffix("%")) < 100
    return isinstance(number, int) and not isinstance(number, bool) and number >= 0


def removal_counts(numbers: Sequence[int | str], num_train: int) -> tuple[int, ...]:
    """The counts that the numbers come to, each once: a share to the nearest, but above 0% to one at least."""
    return tuple(dict.fromkeys(_count(number, num_train) for number in numbers))


def _count(number: int | str, num_train: int) -> int:
    if isinstance(number, int):
        return number
    share = float(number.removesuffix("%")) / 100
    return max(1, round(share * num_train)) if share else 0


def shares_of_rounds(num_removed: int, num_rounds: int) -> list[int]:
    """How many examples go in each round, near a number's share of them; the last make up for what is left."""
    gone = [num_removed * number // num_rounds for number in range(num_rounds + 1)]
    return [after - before for before, after in pairwise(gone)]
