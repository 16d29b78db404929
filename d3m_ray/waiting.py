"""Waits that say what they wait for, and that end."""

import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from d3m_ray.errors import RunError

NOTICE_SECONDS = 10.0  # a wait of this length is said, and again after each such time

Say = Callable[[str], None]
"""Tells the user one line."""


def say_plainly(line: str) -> None:
    """The `Say` of a process without a display."""
    sys.stderr.write(f"{line}\n")


@contextmanager
def announced(what: str, say: Say = say_plainly) -> Iterator[None]:
    """Say what is waited for while the block, which ends by itself, takes longer than ten seconds."""
    ended = threading.Event()

    def tell() -> None:
        start = time.monotonic()
        while not ended.wait(NOTICE_SECONDS):
            say(f"waiting for {what}, {time.monotonic() - start:.0f} s so far")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


class Patience:
    """What a loop waits for, and how long at most, which may be for ever.

    A wait of up to `usual_seconds` is told as one that nobody need see to. Call `spend` after a round without news,
    `renew` after others.
    """

    def __init__(
        self, what: str, fix: str, max_seconds: float, say: Say = say_plainly, usual_seconds: float = 0.0
    ) -> None:
        self._what, self._fix, self._max_seconds, self._say = what, fix, max_seconds, say
        self._usual_seconds = usual_seconds
        self.renew()

    def renew(self) -> None:
        """What was waited for has come: the next wait counts from now."""
        self._start = time.monotonic()
        self._next_notice = NOTICE_SECONDS

    def spend(self, cause: str = "") -> None:
        """Say what is waited for, and the cause where it is known, every ten seconds.

        Raises RunError when the time is over.
        """
        seconds = time.monotonic() - self._start
        why = f"; {cause}" if cause else ""
        if seconds > self._max_seconds:
            raise RunError(f"waited {seconds:.0f} s (--max-wait-seconds) for {self._what}{why}; {self._fix}")
        if seconds >= self._next_notice:
            self._next_notice = seconds + NOTICE_SECONDS
            self._say(f"waiting for {self._what}, {seconds:.0f} s so far{self._outlook(seconds, why)}")

    def _outlook(self, seconds: float, why: str) -> str:
        """How a wait that has taken so long goes on: as usual, to the end of patience, or as long as it takes."""
        if seconds < self._usual_seconds:
            return f", which is normal up to {self._usual_seconds:.0f} s{why}"
        if math.isinf(self._max_seconds):
            return why
        return f", {self._max_seconds:.0f} at most{why}; {self._fix}"


_left: list[threading.Thread] = []


def bounded(work: Callable[[], object], seconds: float) -> None:
    """Do what may not end, as to leave a cluster that is gone, for so long at most, then let it go on in a thread.

    The error of the work, where it has one, is of no interest: it is about what is left behind.
    """

    def attempt() -> None:
        with suppress(Exception):
            work()

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _left.append(thread)


def has_left_work() -> bool:
    """Whether something that was bounded still goes on: the interpreter, when it ends, would wait for the same."""
    return any(thread.is_alive() for thread in _left)
