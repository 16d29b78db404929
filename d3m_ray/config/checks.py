"""The rules that settings keep, raised as InputError: what the rule is, what was received, and the mend."""

import difflib
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from d3m_ray.errors import InputError
from d3m_ray.selection import ARMS, is_removal

MAX_SEED = 2**32 - 1  # what the generators of numpy, torch and scikit-learn all take
MAX_COUNT = 2**31 - 1
MAX_LISTED = 12  # so many names are listed where one is wrong, and no more


def check(holds: bool, rule: str, received: object) -> None:
    """Raises InputError with the rule and what was received where the rule does not hold."""
    if not holds:
        raise InputError(f"{rule}, received {received!r}")


def check_methods(methods: Sequence[str], known: Collection[str], kind: str) -> None:
    """Raises InputError at the first name that is none of the known ones, with those that are most like it."""
    check(bool(methods), f"--methods names one or more {kind}s", methods)
    unknown = next((method for method in methods if method not in known), None)
    if unknown is None:
        return
    if "," in unknown:
        mend = f"separate names by blanks: --methods {' '.join(unknown.replace(',', ' ').split())}"
    elif close := difflib.get_close_matches(unknown.lower(), known, n=3):
        mend = f"did you mean {' or '.join(close)}?"
    elif len(known) <= MAX_LISTED:
        mend = f"they are {', '.join(known)}"
    else:
        mend = "the README lists them all, trak, ekfac and random among them"
    raise InputError(f"each of --methods is the name of an {kind}, received {unknown!r}; {mend}")


def check_removals(numbers: Sequence[int | str]) -> None:
    """Raises InputError at the first of --num-removed that is neither a count nor a share, with what was meant."""
    check(bool(numbers), "--num-removed is one or more counts, or shares of train", numbers)
    rule = "each of --num-removed is a count from 0, or a share of train below 100%, such as 5%"
    for number in numbers:
        if not is_removal(number):
            blanks = " ".join(str(number).replace(",", " ").split())
            mend = f"; a list is separated by blanks, not commas: {blanks}" if "," in str(number) else ""
            if re.fullmatch(r"0?\.\d+", str(number)):
                mend = f"; did you mean {100 * float(number):g}%?"
            raise InputError(f"{rule}, received {number!r}{mend}")


def check_best_arms(methods: Sequence[str], numbers: Sequence[int | str], seeds: Sequence[int], protocol: str) -> None:
    """Raises InputError where an arm that takes another one's best number would lack what it chooses by."""
    asked = [method for method in methods if ARMS[method].best_of is not None]
    if not asked:
        return
    first = asked[0]
    for method in asked:
        of = ARMS[method].best_of
        if of not in methods:
            raise InputError(f"{method} chooses among the trials of {of}: --methods names both; add {of}")
    rule = f"{first} compares removing some with removing nothing: --num-removed has 0 and another number"
    check(any(_is_zero(n) for n in numbers) and not all(_is_zero(n) for n in numbers), rule, numbers)
    check(len(set(seeds)) > 1, f"{first} compares over seeds: --seeds are two or more", seeds)
    if protocol == "thesis":
        raise InputError(f"{first} decides on val, and --protocol thesis aligns on test; leave one out")


def check_rounds(methods: Sequence[str], rounds: int) -> None:
    """Raises InputError where a number is to go in rounds that an arm chooses by itself, by an alignment."""
    if rounds > 1 and not any(ARMS[method].goes_in_rounds for method in methods):
        raise InputError(
            f"--rounds divides what goes by an alignment, received {rounds} and --methods {' '.join(methods)}, none of "
            "which removes a number by one; leave it out, or add trak or another"
        )
    ruled = [m for m in methods if ARMS[m].alignment is not None and ARMS[m].chooses_number and ARMS[m].best_of is None]
    if rounds > 1 and ruled:
        raise InputError(
            f"--rounds divides --num-removed, and {', '.join(ruled)} chooses its own number; leave it out, or --rounds"
        )


def _is_zero(number: int | str) -> bool:
    return number == 0 if isinstance(number, int) else float(number.removesuffix("%")) == 0


def check_numbers(config: Any) -> None:
    """The rules for every number of these settings and of those within: finite, and no larger than generators take."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            check_numbers(value)
        named = getattr(hints[field.name], "__metadata__", ())
        flag = "--" + (named[0].name if named else field.name.replace("_", "-"))
        is_seed = field.name in ("seed", "seeds") or field.name.endswith(("_seed", "_seeds"))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                check(math.isfinite(number), f"{flag} is a finite number", number)
            elif isinstance(number, int) and is_seed:
                check(0 <= number <= MAX_SEED, f"{flag} is a whole number from 0 to {MAX_SEED}", number)
            elif isinstance(number, int):
                check(number <= MAX_COUNT, f"{flag} is at most {MAX_COUNT}", number)
