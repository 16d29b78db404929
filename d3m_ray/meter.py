"""What this process has done so far, in amounts that only grow: what shows them elsewhere reads them now and then."""

import threading
import time
from collections.abc import Callable, Mapping
from functools import wraps
from typing import NamedTuple, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")


class DoneFor(NamedTuple):
    """On whose account something was done."""

    experiment: str = ""
    method: str = ""
    """Of the first trial that waits for it; empty where none does."""


class Meter:
    """Amounts by name, on the account of an experiment and a method. Safe to use from several threads.

    `steps`, `examples` and `tokens` are of training: optimiser steps, and what their batches hold, padding left out.
    `store_seconds` and `store_calls` are of the store: single files that are read or written, and folders listed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._account = DoneFor()
        self._amounts: dict[DoneFor, dict[str, float]] = {}

    def charge(self, account: DoneFor) -> None:
        """Put what is done from now on, in all threads, on this account."""
        with self._lock:
            self._account = account

    def add(self, **amounts: float) -> None:
        """Count these amounts."""
        with self._lock:
            of_account = self._amounts.setdefault(self._account, {})
            for name, amount in amounts.items():
                of_account[name] = of_account.get(name, 0) + amount

    def read(self) -> Mapping[DoneFor, Mapping[str, float]]:
        """All amounts so far."""
        with self._lock:
            return {account: dict(amounts) for account, amounts in self._amounts.items()}


METER = Meter()
"""This process's."""


def store_call(call: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Have the meter count each call, and its seconds, those that fail included."""

    @wraps(call)
    def counted(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        start = time.perf_counter()
        try:
            return call(*args, **kwargs)
        finally:
            METER.add(store_calls=1, store_seconds=time.perf_counter() - start)

    return counted
