"""Flags to settings: what the environment presets, and each mistake in them said in one line."""

import contextlib
import dataclasses
import functools
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro

from d3m_ray.attribution.registry import flag_prefix
from d3m_ray.commands.terminal import on_standard_output
from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig, plugin_defaults
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.trials.settings import ExecutionConfig

PREFIX = "D3M_RAY_"
PRESETS: dict[str, Callable[[str], Any]] = {
    "address": str,
    "num_workers": lambda text: int(text) or None,  # 0 is as good as left out
    "gpus_per_worker": float,
    "gpus_per_trial": float,
    "cpus_per_trial": int,
    "max_wait_seconds": float,
}
"""The fields of `ExecutionConfig` that the environment may preset, and how each is read."""
PATH_FLAGS = ("--data", "--figures", "--tensorboard")
SHARE_FLAGS = ("--val-share", "--test-share", "--keep-share", "--harmful-fraction", "--warmup-share")
WIDE = "100000"  # columns: the parser's messages, which it draws in boxes as wide as the terminal, are not wrapped
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_PERCENT = re.compile(r"\d+(\.\d+)?%")
_RULE = re.compile("─{3,}|-{3,}")
_COMMAS = re.compile(r"[\w.-]+(,[\w.-]+)+,?")

Config = TypeVar("Config", ExperimentConfig, LdsConfig, LeaderboardConfig)
Parsed = TypeVar("Parsed")


def with_environment(config: Config) -> Config:
    """The settings with what a cluster presets for all of its drivers: D3M_RAY_STORE, D3M_RAY_NUM_WORKERS and so on.

    A variable stands in for the store, or a field of `ExecutionConfig`, that has the value of a class's default.
    Raises InputError where a variable breaks a rule, naming it.
    """
    if not isinstance(config, ExperimentConfig):
        return dataclasses.replace(config, experiment=with_environment(config.experiment))
    execution, plain = config.execution, ExecutionConfig()
    for name in PRESETS:
        text = os.environ.get(PREFIX + name.upper(), "").strip()
        if text and getattr(execution, name) == getattr(plain, name):
            execution = _with_preset(execution, name, text)
    store = os.environ.get(f"{PREFIX}STORE", "").strip()
    default_store = next(field.default for field in dataclasses.fields(config) if field.name == "store")
    if store and config.store == default_store:
        config = dataclasses.replace(config, store=store)
    return dataclasses.replace(config, execution=execution)


def narrowed(config: Config) -> Any:
    """The settings as an instance of a class with a flag for each option of its corpus, and for each of plug-ins."""
    if not isinstance(config, ExperimentConfig):
        return _with_fields(config, experiment=narrowed(config.experiment))
    of_plugins = {**plugin_defaults(), **config.plugins}
    own = {_field_of(name): _with_prefix(name, settings) for name, settings in of_plugins.items()}
    return _with_fields(config, corpus=config.corpus, **own)


def _field_of(name: str) -> str:
    """The field that holds a plug-in's settings in the narrowed class: one that no other field is called."""
    return f"settings_of_{name}"


def _with_prefix(name: str, settings: Any) -> Any:
    """The settings as an instance of a subclass whose flags begin with what they belong to: --mine-sharpness."""
    hints = get_type_hints(type(settings))
    fields = [
        (
            field.name,
            Annotated[hints[field.name], tyro.conf.arg(name=flag_prefix(name) + field.name.replace("_", "-"))],
            dataclasses.field(default_factory=functools.partial(getattr, settings, field.name)),
        )
        for field in dataclasses.fields(settings)
    ]
    made = dataclasses.make_dataclass(type(settings).__name__, fields, bases=(type(settings),), frozen=True)
    made.__doc__ = type(settings).__doc__
    return made()


def _with_fields(config: Any, **fields: Any) -> Any:
    """An instance of a subclass, whose fields of these names are of the types of these values."""
    kept = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    first = dataclasses.fields(config)[0].name  # the one without a default
    added = [
        (name, type(value), dataclasses.field() if name == first else dataclasses.field(default=value))
        for name, value in fields.items()
    ]
    made = dataclasses.make_dataclass(type(config).__name__, added, bases=(type(config),), frozen=True)
    made.__doc__ = type(config).__doc__
    return made(**kept | fields)


def plain(config: Any) -> Any:
    """The settings that `narrowed` was given, with what was parsed; those of plug-ins in `plugins`."""
    base = next(kind for kind in (ExperimentConfig, LdsConfig, LeaderboardConfig) if isinstance(config, kind))
    kept = {field.name: getattr(config, field.name) for field in dataclasses.fields(base)}
    if base is not ExperimentConfig:
        return base(**kept | {"experiment": plain(config.experiment)})
    plugins = {}
    for name, defaults in plugin_defaults().items():
        kind, parsed_to = type(defaults), getattr(config, _field_of(name))
        plugins[name] = kind(**{field.name: getattr(parsed_to, field.name) for field in dataclasses.fields(kind)})
    return base(**kept | {"plugins": plugins})


def _with_preset(execution: ExecutionConfig, name: str, text: str) -> ExecutionConfig:
    try:
        return dataclasses.replace(execution, **{name: PRESETS[name](text)})
    except ValueError:
        wrong = f"it is a {'number' if PRESETS[name] is float else 'whole number'}, received {text!r}"
    except InputError as error:
        wrong = str(error)
    flag = f"--{name.replace('_', '-')}"
    raise InputError(f"the environment variable {PREFIX}{name.upper()} presets {flag}: {wrong}; correct or unset it")


def parsed(parse: Callable[[], Parsed], arguments: Sequence[str]) -> Parsed:
    """What a call of tyro returns. Raises InputError, in one line, where tyro refuses the arguments.

    --help ends the process as tyro ends it.
    """
    _check_texts(arguments)
    try:
        with on_standard_output(), contextlib.redirect_stderr(io.StringIO()):
            return parse()
    except SystemExit as ended:
        if not ended.code:
            with on_standard_output():  # the rest of --help
                pass
            raise
    said = io.StringIO()
    with contextlib.redirect_stderr(said), _wide_terminal(), contextlib.suppress(SystemExit):
        parse()  # again, for a message that is not wrapped
    raise InputError(_in_one_line(said.getvalue(), arguments))


def with_shares(arguments: Sequence[str]) -> list[str]:
    """The arguments with 20% as 0.2 behind each flag that takes a share as a number: others take 20% as it stands."""
    flag, given = "", []
    for argument in arguments:
        name, separator, value = argument.partition("=")
        flag = name if argument.startswith("--") else flag
        value = value if separator else argument
        if flag.replace("_", "-") in SHARE_FLAGS and _PERCENT.fullmatch(value):
            value = str(Decimal(value.removesuffix("%")) / 100)
            argument = f"{name}={value}" if separator else value
        given.append(argument)
    return given


def _check_texts(arguments: Sequence[str]) -> None:
    """Raises InputError where an argument is no text, or a path is an empty one, which would mean this folder."""
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"an argument is text in UTF-8; received {argument!r}: name it otherwise") from error
    given = [*itertools.pairwise(arguments), *(argument.split("=", 1) for argument in arguments)]
    for flag, *value in given:
        if flag in PATH_FLAGS and value and not value[0].strip():
            raise InputError(
                f"{flag} is a path, received {value[0]!r}; name one (. is this folder) or leave the flag out"
            )


@contextlib.contextmanager
def _wide_terminal() -> Iterator[None]:
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDE
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _in_one_line(box: str, arguments: Sequence[str]) -> str:
    """The parts of tyro's box, which rules divide: what is wrong, then what is meant instead; not where the help is.

    Its frame is drawn in Unicode, the title in the upper edge, or in ASCII, the title in a part of its own.
    """
    sections: list[list[str]] = [[]]
    for row in (row.strip("│ ") for row in _STYLE.sub("", box).splitlines()):
        if _RULE.fullmatch(row):
            sections.append([])
        elif row and not row.startswith(("╭", "╰")):
            sections[-1].append(row)
    wrong_at = 0 if box.lstrip().startswith("╭") else 1
    wrong = (
        " ".join(sections[wrong_at] if wrong_at < len(sections) else sections[0])
        .removeprefix("Error parsing ")
        .partition(" Got errors:")[0]
        .rstrip(".")
    )
    parts = [wrong[:1].lower() + wrong[1:]]
    for heading, *said in (section for section in sections[wrong_at + 1 :] if section):
        if heading.startswith("Argument helptext"):
            parts.append(f"it takes {': '.join(said)}")
        elif not heading.startswith("For full helptext"):
            parts.append(" ".join([heading, ": ".join(said)]).strip())
    message = "; ".join(parts)
    listed = next((argument for argument in arguments if _COMMAS.fullmatch(argument)), None)
    if listed is not None:
        message += f"; a list is separated by blanks, not commas: {listed.replace(',', ' ').strip()}"
    return f"{message}; --help tells of every flag"
