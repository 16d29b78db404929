"""Results of shards that stay where they were made, and how each is made again where its machine is gone."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError


class Origin:
    """How a result is made. It holds none, nor those that it is made from: what nobody needs any more is freed."""

    def __init__(self, name: str, step: Callable[..., Any], shared: Any, arguments: Iterable[Any]) -> None:
        """`name` is what the dashboard calls it; of the arguments, some are `Kept`."""
        self.name, self.step, self.shared = name, step, shared
        self._arguments = tuple(each.origin if isinstance(each, Kept) else each for each in arguments)
        self._kept: weakref.ref[Kept] | None = None

    @property
    def kept(self) -> "Kept | None":
        """Its result, while somebody holds that."""
        return None if self._kept is None else self._kept()

    @property
    def sources(self) -> list["Origin"]:
        """Of the results that it is made from."""
        return [each for each in self._arguments if isinstance(each, Origin)]

    def arguments(self) -> list[Any]:
        """What the step is called with beside `shared`, handles in the place of results, all of which are held."""
        return [_handle_of(each) if isinstance(each, Origin) else each for each in self._arguments]

    def keep(self, handle: Any) -> "Kept":
        """Its result, in the place of one that is held, which may be lost."""
        kept = self.kept
        if kept is None:
            kept = Kept(self, handle)
            self._kept = weakref.ref(kept)
        kept.handle = handle
        return kept


class Kept:
    """A result that stays where it was made, for as long as this is held."""

    def __init__(self, origin: Origin, handle: Any) -> None:
        self.origin, self.handle = origin, handle


def lost_sources(of: Sequence[Origin]) -> list[list[Origin]]:
    """What must be made again before these can be made, in sets of which each is made from those before it."""
    depths: dict[Origin, int] = {}
    there: dict[Origin, bool] = {}
    stack = [*of]
    while stack:
        top = stack[-1]
        there |= {each: _is_there(each) for each in top.sources if each not in there}
        lost = [each for each in top.sources if not there[each]]
        missing = [each for each in lost if each not in depths]
        stack += missing
        if not missing:
            depths[stack.pop()] = 1 + max((depths[each] for each in lost), default=-1)
    lost_depths = {each: depth for each, depth in depths.items() if each in there}
    return [[each for each in lost_depths if depths[each] == depth] for depth in sorted(set(lost_depths.values()))]


def _is_there(origin: Origin) -> bool:
    """Whether its result is held, and not lost as far as Ray knows."""
    if origin.kept is None:
        return False
    try:
        ray.get(origin.kept.handle, timeout=0)
    except GetTimeoutError:  # on another machine
        return True
    except RayError:
        return False
    return True


def _handle_of(origin: Origin) -> Any:
    kept = origin.kept
    assert kept is not None, "what a result is made from is held while it is made"
    return kept.handle


def hold(origins: Sequence[Origin], handles: Iterable[Any]) -> list[Kept]:
    """The results of these origins, which are there while the list is."""
    return [origin.keep(handle) for origin, handle in zip(origins, handles, strict=True)]
