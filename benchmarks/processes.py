"""Time a function in one process, and in two at once, each with one torch thread."""

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch

NUM_PROCESSES = (1, 2)


def examples_per_second(measure: Callable[..., float], *arguments: Any) -> tuple[float, ...]:
    """The sum over processes of what `measure(ready, *arguments)` returns, for each of `NUM_PROCESSES`.

    `measure` prepares, calls `ready()`, which waits for the other processes, then times itself.
    """
    spawning = multiprocessing.get_context("spawn")
    totals = []
    for number in NUM_PROCESSES:
        barrier, results = spawning.Barrier(number), spawning.SimpleQueue()
        processes = [spawning.Process(target=_run, args=(measure, barrier, results, arguments)) for _ in range(number)]
        for process in processes:
            process.start()
        totals.append(sum(results.get() for _ in processes))
        for process in processes:
            process.join()
    return tuple(totals)


def _run(measure: Callable[..., float], barrier: Any, results: Any, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    results.put(measure(barrier.wait, *arguments))
