"""A trial reports what its fit's worker tells, asks again where that may help, and never raises."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from d3m_ray.cluster import trainable
from d3m_ray.cluster.trainable import BEGUN, TrialOfFit
from d3m_ray.store.errors import UnusableError


class Answers:
    """In place of the dispatcher's handle: what is asked is noted, the answers come one after the other."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.asked: list[tuple[int, int]] = []
        self.fit = self
        self.begun = SimpleNamespace(remote=lambda *place: BEGUN)
        waiting = iter(answers)

        def get(asked: str | None) -> Any:
            if asked == BEGUN:
                return None
            answer = next(waiting)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(trainable.ray, "get", get)

    def remote(self, of_set: int, number: int) -> None:
        self.asked.append((of_set, number))


def wrapped(error: Exception) -> RayTaskError:
    """As it arrives: the worker's error, inside that of the dispatcher."""
    inner = RayTaskError("fit", "where it failed", error).as_instanceof_cause()
    return RayTaskError("Dispatcher.fit", "the dispatcher", inner).as_instanceof_cause()


CONFIG = {"fit": {"set": 7, "number": 3, "name": "fit random k=10 seed=0"}}
OVER = {"done": True}


def reports(answers: Answers, trial: TrialOfFit | None = None) -> list[dict[str, Any]]:
    """All that a trial reports to Tune, whose own part it does without."""
    if trial is None:
        trial = object.__new__(TrialOfFit)
        trial.setup(CONFIG, dispatcher=answers, of="one")
    told = [trial.step()]
    while not told[-1].get("done"):
        told.append(trial.step())
    return told


def test_what_the_worker_tells_is_reported_once(monkeypatch):
    answers = Answers(monkeypatch, {"ended": 1, "val_wga": 0.5})
    assert reports(answers) == [{"begun": 1}, {"ended": 1, "val_wga": 0.5} | OVER]
    assert answers.asked == [(7, 3)]


def test_what_may_pass_is_tried_again(monkeypatch):
    told = reports(Answers(monkeypatch, wrapped(OSError("away")), wrapped(ActorDiedError()), {"ended": 1}))
    assert told == [*[{"begun": 1}, {"retried": 1}] * 2, {"begun": 1}, {"ended": 1} | OVER]


def test_the_error_of_the_last_try_is_that_of_the_worker(monkeypatch):
    told = reports(Answers(monkeypatch, *[wrapped(OSError("away"))] * 3))
    assert [*map(list, told)][1::2] == [["retried"], ["retried"], ["ended", "error", "trace", "done"]]
    assert told[-1]["error"] == "OSError: away"
    assert "where it failed" in told[-1]["trace"]


def test_where_nobody_hands_out_fits_a_trial_ends_without_a_result(monkeypatch):
    assert reports(Answers(monkeypatch, ActorDiedError())) == [{"begun": 1}, {"abandoned": 1} | OVER]


def test_a_store_of_no_use_is_reported_with_each_try(monkeypatch):
    error = UnusableError("the store is full", True)
    told = reports(Answers(monkeypatch, *[wrapped(error)] * 3))
    assert told[1] == {"unusable": ["the store is full", True], "retried": 1}
    assert told[-1] == told[-1] | {"unusable": ["the store is full", True], "error": "UnusableError: the store is full"}


def test_a_process_serves_one_trial_after_the_other(monkeypatch):
    answers = Answers(monkeypatch, *[wrapped(OSError("away"))] * 3, {"ended": 1})
    trial = object.__new__(TrialOfFit)
    trial.setup(CONFIG, dispatcher=answers, of="one")
    reports(answers, trial)
    assert trial.reset_config({"fit": {"set": 8, "number": 0, "name": "fit checkpoint k=0 seed=0"}})
    assert reports(answers, trial) == [{"begun": 1}, {"ended": 1} | OVER]
    assert answers.asked[-1] == (8, 0)


def test_the_dashboard_says_whose_fits_it_waits_for():
    trial = object.__new__(TrialOfFit)
    trial.setup(CONFIG, of="planted-1")
    assert repr(trial) == "waits for fits of planted-1"
