"""The rules that settings keep, raised as InputError: what the rule is, what was received, and the mend."""

import difflib
import math
from collections.abc import Collection, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from d3m_ray.errors import InputError

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


def check_numbers(config: Any) -> None:
    """The rules for every number of these settings and of those within: finite, and no larger than generators take."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            check_numbers(value)
        markers = getattr(hints.get(field.name), "__metadata__", ())  # a field that was added has no hint of its own
        name = next((marker.name for marker in markers if getattr(marker, "name", None)), field.name.replace("_", "-"))
        flag = f"--{name}"
        is_seed = field.name in ("seed", "seeds") or field.name.endswith(("_seed", "_seeds"))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                check(math.isfinite(number), f"{flag} is a finite number", number)
            elif isinstance(number, int) and is_seed:
                check(0 <= number <= MAX_SEED, f"{flag} is a whole number from 0 to {MAX_SEED}", number)
            elif isinstance(number, int):
                check(number <= MAX_COUNT, f"{flag} is at most {MAX_COUNT}", number)
