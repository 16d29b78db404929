"""What Ray Tune runs for each trial: it waits for a worker to train the fit. It loads Ray alone, and no torch."""

from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError

from d3m_ray.cluster.dispatcher import ENDED, ERROR, TRACE
from d3m_ray.errors import reason
from d3m_ray.store.errors import UnusableError

BEGUN = "begun"  # the metric of a fit that a worker has taken
RETRIED = "retried"  # the metric of a fit whose failure may pass, and that is tried again
UNUSABLE = "unusable"  # the arguments of the error where a fit found the store full, read-only or gone
ABANDONED = "abandoned"  # the metric of a fit that nobody hands out any more
DONE = "done"  # by which Tune knows that a trial is over
MAX_FAILURES = 2  # times that a fit is tried again whose failure may pass, before its error is recorded


class TrialOfFit(tune.Trainable):
    """Asks for the fit of a set and number; reports that a worker has it, then what the worker tells.

    Its process serves one trial after the other. The error of a fit is told and not raised: Tune would start a process
    for the next try, and end it, still loading, as soon as another trial leaves its own.
    """

    def setup(self, config: dict[str, dict[str, Any]], dispatcher: Any = None, of: str = "") -> None:
        self._dispatcher, self._experiment = dispatcher, of
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, dict[str, Any]]) -> bool:
        self._place = new_config["fit"]["set"], new_config["fit"]["number"]
        self._has_begun, self._num_tries_left = False, MAX_FAILURES
        return True

    def __repr__(self) -> str:
        """What the dashboard shows: Ray asks once, so that it is not the trial of the moment."""
        return f"waits for fits of {self._experiment}"

    def step(self) -> dict[str, Any]:
        """Wait for the next of what there is to report."""
        try:
            if not self._has_begun:
                ray.get(self._dispatcher.begun.remote(*self._place))
                self._has_begun = True
                return {BEGUN: 1}
            told = ray.get(self._dispatcher.fit.remote(*self._place))
        except RayError as error:
            if not isinstance(error, RayTaskError):  # of the dispatcher itself, which Ray has asked until it was lost
                return {ABANDONED: 1, DONE: True}
            first = _raised_first(error)
            cause = getattr(first, "cause", None)
            told = {UNUSABLE: list(cause.args)} if isinstance(cause, UnusableError) else {}
            if self._num_tries_left:
                self._num_tries_left, self._has_begun = self._num_tries_left - 1, False
                return {**told, RETRIED: 1}
            told |= {ENDED: 1, ERROR: reason(first), TRACE: str(getattr(first, "traceback_str", first))}
        return {**told, DONE: True}


def _raised_first(error: BaseException) -> BaseException:
    """The error of the worker, which the dispatcher has wrapped once more."""
    while isinstance(cause := getattr(error, "cause", None), RayTaskError):
        error = cause
    return error
