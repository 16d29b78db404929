"""What a long run says while it works: live lines on a terminal, one line a stage elsewhere, and a log."""

import logging
import threading
import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from d3m_ray.experiment.log import RunLog
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import FitEvent
from d3m_ray.wording import counted

LINE_SECONDS = 60.0  # between two lines of how far the fits are, where no terminal shows it all the time


class Progress:
    """Shards and trials done, running and failed, time left and the best val WGA so far. Use it in a `with` block.

    Every line goes to the logger `d3m_ray` too, and, once `log_to` says where, to the store.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._live = Live(Text(), console=self.console, transient=True, refresh_per_second=4)
        self._lock = threading.Lock()  # fits are told of from other threads
        self._label = self._shards = ""
        self._num_fits = self._num_ended = self._num_running = self._num_failed = self._num_trials = 0
        self._best_val_wga: float | None = None
        self._start = self._pass_start = self._told_at = time.monotonic()
        self._log = RunLog()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if error is not None:
            self._log.tell(logging.ERROR, f"ended by {type(error).__name__}: {error}")
        self._log.write()

    def log_to(self, store: Store, experiment: str) -> None:
        """Keep the log of this run beside the results of its experiment, what was said before included."""
        self._log.place(store, experiment)

    def stage(self, text: str) -> None:
        """Begin a stage: a line that stays."""
        with self._lock:
            self._shards = ""
            self._show()
        self.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._log.tell(logging.INFO, text)

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        """The `OnProgress` of attribution."""
        with self._lock:
            if label != self._label:
                self._label, self._pass_start = label, time.monotonic()
            left = _time_left(self._pass_start, num_done, num_shards)
            self._shards = f"{label}: {num_done} of {counted(num_shards, 'shard')}, {left} left"
            self._show()

    def begin_fits(self, num_fits: int) -> None:
        """Count these fits too; from zero, where all before them have ended. The best val WGA stays."""
        with self._lock:
            if self._num_ended == self._num_fits:
                self._start = self._told_at = time.monotonic()
                self._num_fits = self._num_ended = self._num_running = self._num_failed = self._num_trials = 0
            self._num_fits += num_fits

    def fit(self, event: FitEvent) -> None:
        """The `OnFit` of an engine."""
        with self._lock:
            self._num_running += 1 if event.state == "started" else -1
            self._num_ended += event.state in ("done", "failed")
            self._num_failed += event.state == "failed"
            if event.state == "done":
                self._num_trials += event.num_trials
            if event.val_wga is not None:
                self._best_val_wga = max(event.val_wga, self._best_val_wga or 0.0)
            line = self.fits_line()
            counts = {"num_ended": self._num_ended, "num_fits": self._num_fits}
            self._log.tell(logging.INFO, line, {"fit": event.state, **counts, "val_wga": event.val_wga})
            is_due = not self.console.is_terminal and time.monotonic() - self._told_at >= LINE_SECONDS
            if is_due:
                self._told_at = time.monotonic()
            self._show()
        if is_due:
            self.console.print(line, highlight=False, markup=False, emoji=False, soft_wrap=True)

    def _show(self) -> None:
        """What goes on now, one line each: a pass of attribution, and the fits."""
        fits = self.fits_line() if self._num_ended < self._num_fits else ""
        self._live.update(Text("\n".join(filter(None, (self._shards, fits)))))

    def fits_line(self) -> str:
        """Where the fits of all sets stand, in one line."""
        best = "" if self._best_val_wga is None else f", best val WGA so far {self._best_val_wga:.3f}"
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        left = _time_left(self._start, self._num_ended, self._num_fits)
        return (
            f"fits: {self._num_ended} of {self._num_fits} ended ({counted(self._num_trials, 'trial')}), "
            f"{self._num_running} running{failed}, {left} left{best}"
        )


def _time_left(start: float, num_done: int, num_all: int) -> str:
    if not num_done:
        return "?"
    seconds = (time.monotonic() - start) / num_done * (num_all - num_done)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
