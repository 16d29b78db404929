"""Ways to do the same, taken by turns in one process: CPU seconds an example, and ratios within each round."""

import contextlib
import io
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Side:
    """One way, and what one call of it goes through."""

    name: str
    run: Callable[[], object]
    num_examples: int
    """Of one call; the sides of a part may differ in it, where one of them is slow."""
    is_slow: bool = False
    """Takes most of a minute or more: it is not warmed up, and its part has few rounds."""


def by_turns(sides: Sequence[Side], num_rounds: int) -> np.ndarray:
    """[rounds, sides] CPU seconds an example; after one call that is not timed of every side that is not slow.

    CPU time rather than the clock's: a machine seldom does nothing else. What the sides print and warn of is dropped.
    """
    seconds = np.zeros((num_rounds, len(sides)))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for side in sides:
            if not side.is_slow:
                side.run()
        for of_round in seconds:
            for number, side in enumerate(sides):
                start = time.process_time()
                side.run()
                of_round[number] = (time.process_time() - start) / side.num_examples
    return seconds


def compared(sides: Sequence[Side], seconds: np.ndarray) -> dict[str, Any]:
    """What `by_turns` found of each side, as JSON: of the last side, this package's, and of the others beside it."""
    ours = seconds[:, -1]
    return {
        side.name: {
            "times_as_long": spread(of_side / ours),
            "seconds_an_example": spread(of_side),
            "rounds": of_side.tolist(),
            "num_examples": side.num_examples,
        }
        for side, of_side in zip(sides, seconds.T, strict=True)
    }


def spread(values: np.ndarray) -> dict[str, float]:
    """The median over the rounds, with the lowest and the highest."""
    return {"median": float(np.median(values)), "low": float(values.min()), "high": float(values.max())}
