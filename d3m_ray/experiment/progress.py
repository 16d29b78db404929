"""What a long run says while it works: one live line on a terminal, one line a stage elsewhere, and a log."""

import logging
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
        self._label = ""
        self._num_fits = self._num_ended = self._num_running = self._num_failed = self._num_trials = 0
        self._best_val_wga: float | None = None
        self._start = self._told_at = time.monotonic()
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
        self._live.update(Text())
        self.console.print(text, highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._log.tell(logging.INFO, text)

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        """The `OnProgress` of attribution."""
        if label != self._label:
            self._label, self._start = label, time.monotonic()
        left = self._time_left(num_done, num_shards)
        self._live.update(Text(f"{label}: {num_done} of {counted(num_shards, 'shard')}, {left} left"))

    def begin_fits(self, num_fits: int) -> None:
        """Start counting fits from zero; the best val WGA stays."""
        self._num_fits = num_fits
        self._start = self._told_at = time.monotonic()
        self._num_ended = self._num_running = self._num_failed = self._num_trials = 0

    def fit(self, event: FitEvent) -> None:
        """The `OnFit` of an engine."""
        self._num_running += 1 if event.state == "started" else -1
        self._num_ended += event.state in ("done", "failed")
        self._num_failed += event.state == "failed"
        if event.state == "done":
            self._num_trials += event.num_trials
        if event.val_wga is not None:
            self._best_val_wga = max(event.val_wga, self._best_val_wga or 0.0)
        self._live.update(Text(self.fits_line()))
        told = {"fit": event.state, "num_ended": self._num_ended, "num_fits": self._num_fits, "val_wga": event.val_wga}
        self._log.tell(logging.INFO, self.fits_line(), told)
        if not self.console.is_terminal and time.monotonic() - self._told_at >= LINE_SECONDS:
            self._told_at = time.monotonic()
            self.console.print(self.fits_line(), highlight=False, markup=False, emoji=False, soft_wrap=True)

    def fits_line(self) -> str:
        """Where the fits stand, in one line."""
        best = "" if self._best_val_wga is None else f", best val WGA so far {self._best_val_wga:.3f}"
        failed = f", {self._num_failed} failed" if self._num_failed else ""
        left = self._time_left(self._num_ended, self._num_fits)
        return (
            f"fits: {self._num_ended} of {self._num_fits} ended ({counted(self._num_trials, 'trial')}), "
            f"{self._num_running} running{failed}, {left} left{best}"
        )

    def _time_left(self, num_done: int, num_all: int) -> str:
        if not num_done:
            return "?"
        seconds = (time.monotonic() - self._start) / num_done * (num_all - num_done)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
