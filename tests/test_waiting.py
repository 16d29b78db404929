"""A wait says what it waits for, after a while and again, and ends."""

import math
import threading
import time

import pytest

from d3m_ray import waiting
from d3m_ray.errors import RunError
from d3m_ray.waiting import Patience, announced


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 0.02)


def test_a_wait_is_announced_after_a_while_and_again():
    said: list[str] = []
    with announced("the kettle", said.append):
        time.sleep(0.2)
    assert len(said) >= 2
    assert said[0] == "waiting for the kettle, 0 s so far"
    num_said = len(said)
    time.sleep(0.05)
    assert len(said) == num_said, "it goes on after the wait"


def test_what_comes_at_once_is_not_announced(monkeypatch):
    monkeypatch.setattr(waiting, "NOTICE_SECONDS", 10)
    said: list[str] = []
    with announced("the kettle", said.append):
        pass
    assert said == []


def test_patience_ends_and_is_renewed():
    said: list[str] = []
    patience = Patience("the kettle", "fill it", max_seconds=0.1, say=said.append)
    patience.spend()
    assert said == []
    time.sleep(0.05)
    patience.spend()
    assert said == ["waiting for the kettle, 0 s so far, 0 at most; fill it"]
    patience.renew()
    time.sleep(0.07)
    patience.spend()
    time.sleep(0.05)
    with pytest.raises(RunError, match=r"waited 0 s \(--max-wait-seconds\) for the kettle; fill it"):
        patience.spend()


def test_a_wait_is_told_as_normal_for_as_long_as_it_is():
    said: list[str] = []
    for usual_seconds in (100, 0.01):
        patience = Patience("the kettle", "fill it", 200, said.append, usual_seconds)
        time.sleep(0.05)
        patience.spend("the stove is warm")
    assert said == [
        "waiting for the kettle, 0 s so far, which is normal up to 100 s; the stove is warm",
        "waiting for the kettle, 0 s so far, 200 at most; the stove is warm; fill it",
    ]


def test_patience_for_what_ends_by_itself_says_so_and_no_more():
    said: list[str] = []
    patience = Patience("the kettle", "", max_seconds=math.inf, say=said.append)
    time.sleep(0.05)
    patience.spend()
    assert said == ["waiting for the kettle, 0 s so far"]


def test_what_does_not_end_is_left_behind_and_what_fails_is_not() -> None:
    def fails() -> None:
        raise RuntimeError("made up")

    released = threading.Event()
    waiting.bounded(fails, 10)
    assert not waiting.has_left_work()
    waiting.bounded(released.wait, 0.01)
    assert waiting.has_left_work()
    released.set()
    while waiting.has_left_work():
        time.sleep(0.01)
