"""What a machine took with it is made again in the order in which it was made, and nothing else is."""

import gc
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, ObjectLostError, RayTaskError

from d3m_ray.cluster import kept as module
from d3m_ray.cluster import pool
from d3m_ray.cluster.kept import Origin, hold, lost_sources
from d3m_ray.cluster.pool import RayPool


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The handles of what is lost; all else is on another machine."""
    lost: set[str] = set()

    def get(handle: str, timeout: float) -> None:
        assert timeout == 0
        raise ObjectLostError(handle, None, "") if handle in lost else GetTimeoutError

    monkeypatch.setattr(module.ray, "get", get)
    return lost


def made(name: str, *arguments: Any) -> Any:
    (kept,) = hold([Origin(name, len, None, arguments)], [name])
    return kept


def names(sets: list[list[Origin]]) -> list[list[str]]:
    return [sorted(origin.name for origin in origins) for origins in sets]


def test_what_was_lost_is_made_again_before_what_is_made_from_it(lost):
    first, other = made("first", 7), made("other")
    second = made("second", first)
    third = Origin("third", len, None, [second, other, 3])
    assert third.arguments() == ["second", "other", 3]
    assert lost_sources([third]) == []
    lost |= {"other"}
    assert names(lost_sources([third])) == [["other"]]
    lost |= {"second"}
    assert names(lost_sources([third])) == [["other", "second"]], "the first is there"
    also = Origin("also", len, None, [first, other])
    assert names(lost_sources([also, third])) == [["other", "second"]], "each once"
    lost |= {"first"}
    assert names(lost_sources([third])) == [["first", "other"], ["second"]]
    again = hold([second.origin], ["second, again"])
    assert again == [second], "who holds it, has it again"
    assert third.arguments() == ["second, again", "other", 3]


def test_what_nobody_holds_is_freed_and_made_again_where_it_is_needed(lost):
    handle = "a handle"
    first = made("first")
    first.handle = handle
    second = made("second", first)
    third = Origin("third", len, None, [second])
    del first
    gc.collect()
    assert lost_sources([third]) == [], "the second needs the first no more"
    lost |= {"second"}
    (of_first,), (of_second,) = lost_sources([third])
    assert (of_first.name, of_first.kept, of_second.name) == ("first", None, "second")
    held = hold([of_first], ["first, again"])
    assert of_second.arguments() == ["first, again"]
    del held
    assert of_first.kept is None


def test_a_long_chain_is_made_again_one_after_the_other(lost):
    chain = [made("0")]
    for number in range(1, 3000):
        chain.append(made(str(number), chain[-1]))
    lost |= {kept.handle for kept in chain}
    assert names(lost_sources([Origin("end", len, None, chain[-1:])])) == [[str(number)] for number in range(3000)]


# --- a pool on made-up workers ----------------------------------------------------------------------------------------


class Handle:
    """Of a call: what comes of it."""

    def __init__(self, outcome: Any = None) -> None:
        self.outcome = outcome


class Workers:
    """In place of Ray, a fleet of one worker, its dispatcher and its room: what the calls of each name come to."""

    num_slots = 1

    def __init__(self, monkeypatch: pytest.MonkeyPatch, outcomes: dict[str, list[Any]]) -> None:
        self.called: list[str] = []
        self.said: list[str] = []
        self.asked: list[tuple[str, Any]] = []
        self._outcomes = outcomes
        self.workers, self.shard, self.dispatcher = [self], self, self
        monkeypatch.setattr(pool, "ray", SimpleNamespace(wait=lambda handles, **_: (handles[:1], handles[1:]), get=get))
        monkeypatch.setattr(module, "ray", SimpleNamespace(get=get))

    def options(self, name: str, num_returns: int) -> "Workers":
        assert num_returns == 2
        self.called.append(name)
        return self

    def remote(self, step: Any, shared: Any, *arguments: Any) -> tuple[Handle, Handle]:
        """What says that it ended, which an error of the call is, and its result, which may be lost."""
        name = self.called[-1]
        outcome, result = self._outcomes[name].pop(0) if self._outcomes.get(name) else (None, name)
        return Handle(outcome), Handle(result)

    def __getattr__(self, name: str) -> Any:
        def remote(*arguments: Any) -> Handle:
            self.asked.append((name, arguments[-1]))
            return Handle(0)

        return SimpleNamespace(remote=remote)  # of the dispatcher

    def next_number(self) -> int:
        return 7

    def room(self, for_what: str) -> Any:
        return SimpleNamespace(look=lambda: True)

    def patience(self, what: str) -> Any:
        return SimpleNamespace(spend=lambda: None, renew=lambda: None)

    def grow(self, num_wanted: int) -> int:
        return 1

    def answer(self, handle: Handle) -> Any:
        return handle.outcome

    def check_own_ray(self) -> None:
        """It is there."""

    def say(self, line: str) -> None:
        self.said.append(line)


def get(handle: Handle, timeout: float | None = None) -> Any:
    if isinstance(handle.outcome, Exception):
        raise handle.outcome
    return handle.outcome


def of_step(error: Exception) -> RayTaskError:
    return RayTaskError("shard", f"a trace: {error}", error).as_instanceof_cause()


LOST = ObjectLostError("ff", None, "")
DIED = ActorDiedError()


def shards(label: str, *numbers: int, of: int = 3) -> list[str]:
    return [f"{label}, shard {number}/{of}" for number in numbers]


def test_a_shard_whose_process_dies_is_begun_again_where_that_may_help(monkeypatch):
    second = shards("adding", 2)[0]
    workers = Workers(monkeypatch, {second: [(DIED, DIED)] * 3})
    with RayPool(workers, None) as used:
        assert list(used.map("adding", max, None, range(3))) == shards("adding", 1, 2, 3)
    assert workers.called.count(second) == 4
    assert [asked for asked in workers.asked if asked[0] == "again"] == [("again", second)] * 3
    workers = Workers(monkeypatch, {second: [(DIED, DIED)] * 4})
    with RayPool(workers, None) as used, pytest.raises(ActorDiedError):
        list(used.map("adding", max, None, range(3)))


def test_the_error_of_a_step_is_raised_at_once(monkeypatch):
    workers = Workers(monkeypatch, {shards("adding", 1)[0]: [(of_step(KeyError("shard")), None)]})
    with RayPool(workers, None) as used, pytest.raises(KeyError):
        list(used.map("adding", max, None, range(3)))
    assert workers.called.count(shards("adding", 1)[0]) == 1


def test_what_a_shard_lacks_is_made_again_and_so_is_a_result_that_is_lost_on_its_way(monkeypatch):
    second, third = shards("reading", 2, 3)
    workers = Workers(monkeypatch, {second: [(of_step(LOST), LOST)], third: [(None, LOST)]})
    with RayPool(workers, None) as used:
        kept = used.map_kept("keeping", max, None, range(3))
        kept[1].handle.outcome = LOST
        assert list(used.map("reading", max, None, kept)) == shards("reading", 1, 2, 3)
        assert [each.handle.outcome for each in kept] == shards("keeping", 1, 2, 3)
    assert {name: workers.called.count(name) for name in workers.called} == {
        **dict.fromkeys(shards("keeping", 1, 3) + shards("reading", 1), 1),
        **dict.fromkeys([*shards("keeping", 2), second, third], 2),
    }
    assert workers.said == ["1 result kept on a machine that is gone, to be computed again (keeping, shard 2/3)"]
