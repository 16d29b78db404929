"""The rules that settings keep, raised as InputError: what the rule is, what was received, and the fix."""

import difflib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from d3m_ray.errors import InputError

MAX_SEED = 2**32 - 1  # what the generators of numpy, torch and scikit-learn all take
MAX_COUNT = 2**31 - 1  # what every column and library takes
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
        fix = f"separate names by blanks: --methods {' '.join(unknown.replace(',', ' ').split())}"
    elif close := difflib.get_close_matches(unknown.lower(), known, n=3):
        fix = f"did you mean {' or '.join(close)}?"
    elif len(known) <= MAX_LISTED:
        fix = f"they are {', '.join(known)}"
    else:
        fix = "the README lists them all, trak, ekfac and random among them"
    raise InputError(f"each of --methods is the name of an {kind}, received {unknown!r}; {fix}")


def check_known(flag: str, received: str, known: Collection[str]) -> None:
    """Raises InputError where a name is none of those known, with the one that is most like it."""
    if received in known:
        return
    close = difflib.get_close_matches(received, known, 1) or [name for name in known if received.startswith(f"{name}_")]
    hint = f" (did you mean {close[-1]!r}?)" if close else ""
    raise InputError(f"{flag} is one of {', '.join(map(repr, known))}; received {received!r}{hint}")


def flags_of(kind: type, prefix: str = "") -> Iterator[str]:
    """The flags of a settings class and of those within: `--num-epochs`, or with a prefix `--mine-sharpness`."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint = hints[field.name]
        if is_dataclass(hint):
            yield from flags_of(hint, prefix)  # type: ignore[arg-type]  # it is a type, as every hint
        else:
            yield _flag(field.name, hint, prefix)


def _flag(field: str, hint: Any, prefix: str = "") -> str:
    named = (marker.name for marker in getattr(hint, "__metadata__", ()) if getattr(marker, "name", None))
    return f"--{prefix}{next(named, field.replace('_', '-'))}"


def check_values(config: Any, prefix: str = "") -> None:
    """The rules for every value of these settings and of those within.

    Numbers are finite, and no larger than generators take; words are of those that the type names, which a command line
    sees to, and Python does not.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, hint = getattr(config, field.name), hints.get(field.name)
        if is_dataclass(value):
            check_values(value)
        flag = _flag(field.name, hint, prefix)  # a field that was added has no hint of its own
        if get_origin(hint) is Literal:
            check(value in get_args(hint), f"{flag} is one of {', '.join(map(str, get_args(hint)))}", value)
        is_seed = field.name in ("seed", "seeds") or field.name.endswith(("_seed", "_seeds"))
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float):
                check(math.isfinite(number), f"{flag} is a finite number", number)
            elif isinstance(number, int) and is_seed:
                check(0 <= number <= MAX_SEED, f"{flag} is a whole number from 0 to {MAX_SEED}", number)
            elif isinstance(number, int):
                check(number <= MAX_COUNT, f"{flag} is at most {MAX_COUNT}", number)
