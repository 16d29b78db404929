"""A trial reports what its fit's worker tells, asks again where that may help, and never raises."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from d3m_ray.cluster import trainable
from d3m_ray.cluster.trainable import BEGUN, follow_fit


@pytest.fixture
def reported(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(trainable.tune, "report", told.append)
    return told


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


CONFIG = {"fit": {"set": 7, "number": 3, "name": "random-10-seed0"}}


def test_what_the_worker_tells_is_reported_once(reported, monkeypatch):
    answers = Answers(monkeypatch, {"ended": 1, "val_wga": 0.5})
    follow_fit(CONFIG, answers)
    assert reported == [{"begun": 1}, {"ended": 1, "val_wga": 0.5}]
    assert answers.asked == [(7, 3)]


def test_what_may_pass_is_tried_again(reported, monkeypatch):
    follow_fit(CONFIG, Answers(monkeypatch, wrapped(OSError("away")), ActorDiedError(), {"ended": 1}))
    assert reported == [*[{"begun": 1}, {"retried": 1}] * 2, {"begun": 1}, {"ended": 1}]


def test_the_error_of_the_last_try_is_that_of_the_worker(reported, monkeypatch):
    follow_fit(CONFIG, Answers(monkeypatch, *[wrapped(OSError("away"))] * 3))
    assert [*map(list, reported)][1::2] == [["retried"], ["retried"], ["ended", "error", "trace"]]
    assert reported[-1]["error"] == "OSError: away"
    assert "where it failed" in reported[-1]["trace"]
