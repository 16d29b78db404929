"""What Ray Tune runs for each trial: it waits for a worker to train the fit. It loads Ray alone, and no torch."""

from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError

from d3m_ray.cluster.dispatcher import ENDED, ERROR, TRACE
from d3m_ray.errors import reason

BEGUN = "begun"  # the metric of a fit that a worker has taken
RETRIED = "retried"  # the metric of a fit whose failure may pass, and that is tried again
MAX_FAILURES = 2  # times that a fit is tried again whose failure may pass, before its error is recorded


def follow_fit(config: dict[str, dict[str, Any]], dispatcher: Any) -> None:
    """The trainable: ask for the fit of this set and number, report that a worker has it, and what the worker tells.

    The error of a fit is told and not raised: Tune would start a process for the next try, and end it, still loading,
    as soon as another trial leaves its own.
    """
    place = config["fit"]["set"], config["fit"]["number"]
    for num_tries_left in range(MAX_FAILURES, -1, -1):
        try:
            ray.get(dispatcher.begun.remote(*place))
            tune.report({BEGUN: 1})
            told = ray.get(dispatcher.fit.remote(*place))
        except RayError as error:
            first = _raised_first(error)
            trace = str(getattr(first, "traceback_str", first))
            told = {RETRIED: 1} if num_tries_left else {ENDED: 1, ERROR: reason(first), TRACE: trace}
        tune.report(told)
        if RETRIED not in told:
            return


def _raised_first(error: BaseException) -> BaseException:
    """The error of the worker, which the dispatcher has wrapped once more."""
    while isinstance(cause := getattr(error, "cause", None), RayTaskError):
        error = cause
    return error
