"""Signals that ask a command to end: it ends as at Ctrl-C, with its message, and with the store whole."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from d3m_ray.trials.settings import ExecutionConfig

ENDING = (signal.SIGTERM, signal.SIGHUP)  # of a scheduler or the system, and of a terminal that closes
WARNING = signal.SIGUSR1  # what SLURM can send before it ends a job


_received: list[int] = []  # the signal that ends this process


class Stopped(KeyboardInterrupt):
    """A signal, which its text names, asked this process to end. Whatever cleans up after Ctrl-C does so after it."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block, of the main thread, each of `ENDING` raises `Stopped`, once; then all is as it was before.

    A signal that is ignored stays so: nohup lets a run outlive its terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[signal.Signals, Any] = {number: signal.getsignal(number) for number in (*ENDING, WARNING)}
    _received.clear()
    try:
        for number in ENDING:
            _heed(number)
        yield
    except KeyboardInterrupt as error:
        if _received and not isinstance(error, Stopped):  # Ray's own calls make one of whatever a handler raises
            raise Stopped(_received[0]) from error
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def heed_warnings(execution: ExecutionConfig) -> None:
    """Let SIGUSR1 raise `Stopped` too, in a block of `ended_by_signals`, where the run was told to."""
    if execution.stop_on_usr1 and threading.current_thread() is threading.main_thread():
        _heed(WARNING)


def _heed(number: int) -> None:
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    for each in (*ENDING, WARNING):  # what ends already is not interrupted once more; Ctrl-C and KILL still do
        signal.signal(each, signal.SIG_IGN)
    _received.append(number)
    raise Stopped(number)
