"""The rules that settings keep, raised as InputError: what the rule is, what was received, and the fix."""

import difflib
import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from numbers import Integral, Number, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from d3m_ray.errors import InputError

MAX_SEED = 2**32 - 1  # what the generators of numpy, torch and scikit-learn all take
MAX_COUNT = 2**31 - 1  # what every column and library takes
MAX_LISTED = 12  # so many names are listed where one is wrong, and no more
_WITH_PASSWORD = r"(?<=://)[^/?#@:]*:(?!\d*/)[^?#]*(?=@)"  # USER:PASSWORD, no port; slashes may be as they are
_ALONE = r"(?:(?<=http://)|(?<=https://))[^/?#@]+(?=@)"  # what stands alone before the server is a token more often
_PASSWORD = re.compile(rf"(?i){_WITH_PASSWORD}|{_ALONE}")
_SECRET_WORDS = "secret|password|token|credential|access_?key|api_?key|signature"
_SECRET_OPTION = re.compile(rf"(?i)(?<=[?&])([^=&]*(?:{_SECRET_WORDS})[^=&]*|sig|auth|pwd|key)=[^&]*")


def check(holds: bool, rule: str, received: object) -> None:
    """Raises InputError with the rule and what was received where the rule does not hold."""
    if not holds:
        raise InputError(f"{rule}, received {received!r}")


def without_secret(uri: str) -> str | None:
    """The URI with *** for its password, or for an option that holds a key; None where it has neither."""
    harmless = _SECRET_OPTION.sub(r"\1=***", _PASSWORD.sub("***", uri))
    return None if harmless == uri else harmless


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


def check_storable(settings: Any, what: str) -> None:
    """Raises InputError where settings hold what is no JSON value: records and keys are made of them."""
    for field in fields(settings):
        try:
            json.dumps(getattr(settings, field.name), allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            received = f"{field.name} {getattr(settings, field.name)!r}"
            raise InputError(f"{what} are finite numbers, words and lists of them, received {received}") from error


def check_values(config: Any, prefix: str = "") -> None:
    """The rules for every value of these settings and of those within.

    Numbers are finite, and no larger than generators take; words are of those that the type names, which a command line
    sees to, and Python does not. A whole number that stands for a float becomes one, or 1 and 1.0 would have two keys.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        value, hint = getattr(config, field.name), hints.get(field.name)
        kind: Any = hint if is_dataclass(hint) else object
        check(isinstance(value, kind), f"{field.name} is a {kind.__name__}", value)
        if is_dataclass(value):
            check_values(value)
        flag = _flag(field.name, hint, prefix)  # a field that was added has no hint of its own
        value = _of_type(value, hint, flag)
        object.__setattr__(config, field.name, value)  # equal to what was there
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


def _of_type(value: Any, hint: Any, flag: str) -> Any:
    """The value, of one of the number types that the hint names; what is no number is left to other rules.

    numpy's numbers become Python's, which JSON and hashes know. Raises InputError where a number is of no such type.
    """
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    named = get_args(hint) if get_origin(hint) in (tuple, UnionType, Union) else (hint,)
    if get_origin(hint) is tuple and isinstance(value, tuple):
        inner = named[0] if named[-1:] == (...,) else None
        return tuple(_of_type(each, inner, flag) for each in value) if inner is not None else value
    if not isinstance(value, Number) or not {int, float} & set(named):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value) if int in named else float(value)
    rule = f"{flag} is a number" if float in named else f"{flag} is a whole number"
    check(float in named and isinstance(value, Real) and not isinstance(value, bool), rule, value)
    return float(value)  # type: ignore[arg-type]  # it is real
