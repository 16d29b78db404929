"""The worker pool that attribution runs on: a protocol, and the pool that runs in this process."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, the number of shards done, and the number of shards."""


def ignore_progress(label: str, num_done: int, num_shards: int) -> None:
    """The default of `OnProgress`: say nothing."""


class WorkerPool(Protocol):
    """Runs pure steps over shards. A step is a module-level function `step(shared, *shard_arguments)`.

    A step that fails raises its own exception out of `map`. Results do not depend on the number of workers: a step
    sees one shard and what is shared, and results come back in the order of the shards.
    """

    num_workers: int

    def put(self, value: Any) -> Any:
        """A handle to a value that every step of a `map` shares; it travels to each machine once."""
        ...

    def map(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> Iterator[Any]:
        """The results of `step(shared, *arguments)` in the order of the shards, as they become ready."""
        ...

    def map_kept(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> list[Any]:
        """Handles to the results, which stay where they were made; a later `map` takes them as shards."""
        ...


class LocalPool:
    """The pool of one worker that is this process."""

    num_workers = 1

    def __init__(self, on_progress: OnProgress = ignore_progress) -> None:
        self._on_progress = on_progress

    def put(self, value: Any) -> Any:
        return value

    def map(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> Iterator[Any]:
        arguments = list(zip(*shards, strict=True))
        for index, shard in enumerate(arguments):
            result = step(shared, *shard)
            self._on_progress(label, index + 1, len(arguments))
            yield result

    def map_kept(self, label: str, step: Callable[..., Any], shared: Any, *shards: Iterable[Any]) -> list[Any]:
        return list(self.map(label, step, shared, *shards))
