"""What waits in the dispatcher for a worker: the fits of a set, a call for each, and loans of attribution."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import RayError


class FitSet:
    """Fits that were begun together, packed, a handle to what they share, and the trials that will ask for them."""

    def __init__(
        self, context: Sequence[Any], fits: Sequence[bytes], num_trials: int, names: Sequence[str] = ()
    ) -> None:
        self.context, self.fits = context, fits
        self.names = names or ["fit"] * len(fits)
        self.calls: dict[int, Call] = {}
        self.is_over = False
        self._num_waiting, self._num_absent = len(fits), num_trials  # fits without a worker, trials without a process
        self.all_taken, self.all_ask = asyncio.Event(), asyncio.Event()

    def take(self) -> None:
        """One of the fits waits no longer: a worker has it, or there is none."""
        self._num_waiting -= 1
        if self._num_waiting <= 0:
            self.all_taken.set()

    def count_trial(self) -> None:
        """A trial has asked, so it has a process."""
        self._num_absent -= 1
        if self._num_absent <= 0:
            self.all_ask.set()

    def end(self) -> None:
        """Nobody asks for the fits any more."""
        self.is_over = True
        self.all_taken.set()


@dataclass(frozen=True, eq=False)
class Call:
    """A fit that a worker is to train, and what follows from it."""

    fits: FitSet
    number: int
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    answer: "asyncio.Future[dict[str, Any]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def take(self) -> None:
        """It waits no longer."""
        self.fits.take()
        self.taken.set()

    def fail(self, error: RayError) -> None:
        """Tell whoever asks why no worker trained it."""
        if not self.taken.is_set():
            self.take()
        self.answer.set_exception(error)
        self.answer.exception()  # looked at: where nobody asks, asyncio has nothing to say of it


@dataclass(frozen=True, eq=False)
class Loan:
    """A worker that attribution asks for: its number, None where it was not needed in the end."""

    worker: "asyncio.Future[int | None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def end(self) -> None:
        """The worker is given back, or not wanted any more."""
        self.over.set()
        if not self.worker.done():
            self.worker.set_result(None)

    def fail(self, error: RayError) -> None:
        """Tell the pool why there is no worker."""
        if not self.worker.done():
            self.worker.set_exception(error)
            self.worker.exception()
