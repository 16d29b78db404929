"""What a machine took with it is made again in the order in which it was made, and nothing else is."""

import gc
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, ObjectLostError

from d3m_ray.cluster import kept as module
from d3m_ray.cluster.kept import Origin, hold, lost_sources


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
    assert lost_sources(third) == []
    lost |= {"other"}
    assert names(lost_sources(third)) == [["other"]]
    lost |= {"second"}
    assert names(lost_sources(third)) == [["other", "second"]], "the first is there"
    lost |= {"first"}
    assert names(lost_sources(third)) == [["first", "other"], ["second"]]
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
    assert lost_sources(third) == [], "the second needs the first no more"
    lost |= {"second"}
    (of_first,), (of_second,) = lost_sources(third)
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
    assert names(lost_sources(Origin("end", len, None, chain[-1:]))) == [[str(number)] for number in range(3000)]
