"""Each fit is counted once, in one state, whatever becomes of it."""

import time

import numpy as np
import pytest

from d3m_ray.experiment.standing import Standing, time_left
from d3m_ray.trials.engine import FitEvent, PlannedFit, State
from d3m_ray.trials.trial import FitSpec

FIT = PlannedFit(FitSpec("f", np.arange(3), 2), ())


def after(*states: State, num_fits: int = 4) -> Standing:
    standing = Standing().with_fits(num_fits)
    for state in states:
        standing = standing.after(FitEvent(state, FIT))
    return standing


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((), (4, 0, 0, 0)),
        (("started", "started"), (2, 2, 0, 0)),
        (("started", "done", "started", "failed"), (2, 0, 1, 1)),
        (("started", "retried"), (4, 0, 0, 0)),
        (("started", "retried", "started", "done"), (3, 0, 1, 0)),
    ],
)
def test_fits_by_state(states: tuple[State, ...], expected: tuple[int, ...]) -> None:
    assert after(*states).by_state() == dict(zip(("waiting", "running", "done", "failed"), expected, strict=True))


def test_a_set_that_begins_while_others_go_on_is_added_and_else_counts_from_zero() -> None:
    assert after("started", "done").with_fits(2).num_fits == 6
    ended = after("started", "failed", num_fits=1).after(FitEvent("started", FIT)).after(FitEvent("done", FIT, 0.5))
    again = Standing(2, 2, 0, 1, 0, ended.best_val_wga).with_fits(3)
    assert again == Standing(3, best_val_wga=0.5)


def test_fits_that_are_begun_again_are_counted_anew() -> None:
    standing = after("started", "done", "started").without_fits_left()
    assert standing.by_state() == {"waiting": 0, "running": 0, "done": 1, "failed": 0}
    assert standing.with_fits(3) == Standing(3)


def test_the_best_val_wga_is_the_highest_one_also_of_zero() -> None:
    standing = after("started", num_fits=3)
    for val_wga, best in ((None, None), (0.0, 0.0), (0.5, 0.5), (0.25, 0.5)):
        standing = standing.after(FitEvent("done", FIT, val_wga))
        assert standing.best_val_wga == best


def test_the_time_left_is_as_on_average_so_far() -> None:
    assert time_left(time.monotonic() - 100, 0, 4) == "?"
    assert time_left(time.monotonic() - 10, 1, 4) == "30 s"
    assert time_left(time.monotonic() - 600, 1, 3) == "20 min"
