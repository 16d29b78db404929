"""What every command says and how it ends: lines on the two outputs, and the exit status of an error."""

import contextlib
import functools
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

from rich.console import Console

from d3m_ray.commands.signals import Stopped, ended_by_signals
from d3m_ray.entry_points import load_plugins
from d3m_ray.errors import InputError, RunError
from d3m_ray.store.errors import StoreError
from d3m_ray.waiting import has_left_work

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2


def exit_status(work: Callable[[], int], debug: bool = False) -> int:
    """What a command ends with: what `work` returns, or the status of an error, which is said in one line.

    SIGTERM and SIGHUP end it as Ctrl-C does. With `debug`, its traceback stands above the line. An
    error of no kind that is foreseen is raised.
    """
    try:
        with ended_by_signals():
            return work()
    except BrokenPipeError:  # whoever read the output, `head` for one, has had enough: nothing more to say to them
        _silence_standard_output()
        return EXIT_FAILED
    except (InputError, StoreError, ConnectionError, RunError) as error:
        if debug:
            traceback.print_exc()
        say(f"error: {' '.join(str(error).splitlines())}", "red")
        return EXIT_FAILED if isinstance(error, RunError) else EXIT_BAD_INPUT
    except KeyboardInterrupt as error:
        how = f"ended by {error}" if isinstance(error, Stopped) else "interrupted"
        say(f"{how}: what was done is stored, the same command goes on from there")
        return 128 + (error.number if isinstance(error, Stopped) else signal.SIGINT)  # as a shell tells of a signal


def end(status: int) -> NoReturn:
    """End the process; at once where it left a Ray that is gone, for which the interpreter would wait once more."""
    if has_left_work():
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def say(line: str, style: str = "") -> None:
    """One line on stderr, never wrapped: what reads it may be a program."""
    Console(stderr=True).print(line, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


@functools.cache
def tell_of_broken_plugins() -> None:
    """A warning for each plug-in that could not be imported; once, however many ask."""
    for line in load_plugins():
        say(f"warning: {line}", "yellow")


@contextlib.contextmanager
def on_standard_output() -> Iterator[None]:
    """A block that prints. Raises RunError where that cannot be written, as on a full disk."""
    try:
        yield
        if sys.stdout is not None:  # it is, where the process was started with it closed
            sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence_standard_output()
        reason = error.strerror or type(error).__name__
        raise RunError(f"the standard output cannot be written ({reason}): what it tells is in the store") from error


def _silence_standard_output() -> None:
    """What is left in its buffer would fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
