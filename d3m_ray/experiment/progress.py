"""What a long run says while it works: live lines on a terminal, one line a stage elsewhere, and a log."""

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from d3m_ray.errors import EngineLostError, reason
from d3m_ray.experiment.log import RunLog
from d3m_ray.experiment.standing import Observer, Standing, time_left
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import FitEvent, Lost
from d3m_ray.wording import counted

LINE_SECONDS = 60.0  # between two lines of how far the run is, where no terminal shows it all the time
SHARD_LINES = 10  # of a pass of attribution in the log, at most
WARNING = "warning: "  # begins what a person should know


class Progress:
    """Shards and trials done, running and failed, time left and the best val WGA so far. Use it in a `with` block.

    Every line goes to the logger `d3m_ray` too, and, once `log_to` says where, to the store. Whoever is to `watch` is
    told the same.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live = Live(Text(), console=self.console, transient=True, refresh_per_second=4)
        self._lock = threading.RLock()  # fits are told of from other threads, and an observer may have something to say
        self._label = self._shards = ""
        self._standing = Standing()
        self._start = self._pass_start = self._told_at = time.monotonic()
        self._log = RunLog()
        self._observers: list[Observer] = []

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tell(lambda observer: observer.end(error is None))
        self._live.stop()
        if error is not None:
            self._log.tell(logging.ERROR, _how_it_ended(error))
        self._log.write()

    def log_to(self, store: Store, experiment: str) -> None:
        """Keep the log of this run beside the results of its experiment, what was said before included."""
        self._log.place(store, experiment)

    def watch(self, observer: Observer) -> None:
        """Tell the observer too, to the end of the block, or until it fails, which is said and ends nothing else."""
        with self._lock:
            self._observers.append(observer)

    def stage(self, text: str) -> None:
        """Begin a stage: a line that stays."""
        with self._lock:
            self._shards = ""
            self._show()
        self._print(text)
        self._log.tell(logging.WARNING if text.startswith(WARNING) else logging.INFO, text)

    def lost(self, lost: Lost) -> None:
        """The `OnLost` of an engine: a line that stays."""
        line = f"{WARNING}{lost}"
        self._print(line)
        told = {"lost": "machine" if lost.worker is None else lost.worker, "machine": lost.machine, "at": lost.at}
        self._log.tell(logging.WARNING, line, {**told, "cause": lost.cause, "num_slots": lost.num_slots})

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        """The `OnProgress` of attribution."""
        with self._lock:
            if label != self._label:
                self._label, self._pass_start = label, time.monotonic()
            left = time_left(self._pass_start, num_done, num_shards)
            self._shards = line = f"{label}: {num_done} of {counted(num_shards, 'shard')}, {left} left"
            self._show()
            if num_done * SHARD_LINES // num_shards > (num_done - 1) * SHARD_LINES // num_shards:
                told = {"shards": label, "num_done": num_done, "num_shards": num_shards}
                self._log.tell(logging.INFO, line, told)
            self._tell(lambda observer: observer.shards(label, num_done, num_shards))
        self._print_if_due(line)

    def begin_fits(self, num_fits: int) -> None:
        """Count these fits too; from zero, where all before them have ended. The best val WGA stays."""
        with self._lock:
            if self._standing.num_ended == self._standing.num_fits:
                self._start = time.monotonic()
            self._standing = self._standing.with_fits(num_fits)

    def begin_again(self, lost: EngineLostError) -> None:
        """Say why all that is not stored is begun again, and count those fits no more that have not ended."""
        with self._lock:
            self._standing = self._standing.without_fits_left()
        self.stage(f"{WARNING}{lost.what}: what is not stored is begun again")

    def fit(self, event: FitEvent) -> None:
        """The `OnFit` of an engine."""
        with self._lock:
            self._standing = self._standing.after(event)
            line = self.fits_line()
            self._log.tell(logging.INFO, line, self._told_of(event))
            self._show()
            self._tell(lambda observer: observer.fit(event, self._standing))
        self._print_if_due(line)

    def fits_line(self) -> str:
        """Where the fits of all sets stand, in one line."""
        return self._standing.line(self._start)

    def _told_of(self, event: FitEvent) -> dict[str, Any]:
        planned, standing = event.planned, self._standing
        return {
            "fit": event.state,
            "method": planned.method,
            "num_removed": len(planned.fit.removed),
            "seed": planned.seed,
            "fit_key": planned.fit.fit_key,
            "num_trials": len(planned.trials),
            **({} if event.seconds is None else {"seconds": round(event.seconds, 3)}),
            "val_wga": event.val_wga,
            "num_ended": standing.num_ended,
            "num_fits": standing.num_fits,
        }

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for observer in list(self._observers):
            try:
                tell(observer)
            except Exception as error:
                self._observers.remove(observer)
                self.stage(f"{WARNING}{type(observer).__name__} ended, {reason(error)}; the store has every result")

    def _show(self) -> None:
        """What goes on now, one line each: a pass of attribution, and the fits."""
        fits = self.fits_line() if self._standing.num_ended < self._standing.num_fits else ""
        self._live.update(Text("\n".join(filter(None, (self._shards, fits)))))

    def _print_if_due(self, line: str) -> None:
        """A line a minute, where no terminal shows them all the time."""
        if not self.console.is_terminal and time.monotonic() - self._told_at >= LINE_SECONDS:
            self._told_at = time.monotonic()
            self._print(line)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _how_it_ended(error: BaseException) -> str:
    """In words: by which error, or which signal; a `KeyboardInterrupt` names none where Ctrl-C or Ray made it."""
    if not isinstance(error, KeyboardInterrupt):
        return f"ended by {type(error).__name__}: {error}"
    return f"ended by {error}" if str(error) else "interrupted"
