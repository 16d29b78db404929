"""Where the fits of a run stand, and who is told: what a terminal, the log, metrics and trackers show is one count."""

import time
from dataclasses import dataclass, replace
from typing import Protocol

from d3m_ray.trials.engine import FitEvent
from d3m_ray.wording import counted


class Observer(Protocol):
    """Is told how far a run is, by one thread at a time, which waits for it."""

    def fit(self, event: FitEvent, standing: "Standing") -> None:
        """A fit has started or ended; the standing counts it already."""
        ...

    def shards(self, label: str, num_done: int, num_shards: int) -> None:
        """The `OnProgress` of attribution."""
        ...

    def end(self, is_whole: bool) -> None:
        """The run is over; not whole where an error or the user ended it."""
        ...


@dataclass(frozen=True)
class Standing:
    """Counts of the sets of fits that are under way."""

    num_fits: int = 0
    num_ended: int = 0
    """Done or failed."""
    num_running: int = 0
    num_failed: int = 0
    num_trials: int = 0
    """That are recorded, of the fits that are done."""
    best_val_wga: float | None = None
    """Of all fits so far, those of earlier sets included."""

    def by_state(self) -> dict[str, int]:
        """Each fit once: waiting, running, done or failed."""
        return {
            "waiting": self.num_fits - self.num_ended - self.num_running,
            "running": self.num_running,
            "done": self.num_ended - self.num_failed,
            "failed": self.num_failed,
        }

    def with_fits(self, num_fits: int) -> "Standing":
        """With these too; from zero, where all before them have ended. The best val WGA stays."""
        if self.num_ended == self.num_fits:
            return Standing(num_fits, best_val_wga=self.best_val_wga)
        return replace(self, num_fits=self.num_fits + num_fits)

    def without_fits_left(self) -> "Standing":
        """Of those alone that have ended."""
        return replace(self, num_fits=self.num_ended, num_running=0)

    def after(self, event: FitEvent) -> "Standing":
        """What it is then."""
        best = [value for value in (self.best_val_wga, event.val_wga) if value is not None]
        return Standing(
            self.num_fits,
            self.num_ended + (event.state in ("done", "failed")),
            self.num_running + (1 if event.state == "started" else -1),
            self.num_failed + (event.state == "failed"),
            self.num_trials + (len(event.planned.trials) if event.state == "done" else 0),
            max(best, default=None),
        )

    def line(self, start: float) -> str:
        """All of it in a sentence, with the time left by that since the start, of `time.monotonic`."""
        best = "" if self.best_val_wga is None else f", best val WGA so far {self.best_val_wga:.3f}"
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        return (
            f"fits: {self.num_ended} of {self.num_fits} ended ({counted(self.num_trials, 'trial')}), "
            f"{self.num_running} running{failed}, {time_left(start, self.num_ended, self.num_fits)} left{best}"
        )


def time_left(start: float, num_done: int, num_all: int) -> str:
    """For what is not done yet, in words, were it to go on as since the start, of `time.monotonic`."""
    if not num_done:
        return "?"
    seconds = (time.monotonic() - start) / num_done * (num_all - num_done)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
