"""What the scheduling of fits costs: fits that do nothing, and short ones beside the ideal of all workers busy."""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
import tyro

from d3m_ray.cluster.engine import connected
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import PlannedFit
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.trials.trial import FitSpec, TrialContext

NUM_SLOTS = 2


@dataclass(frozen=True)
class Sleeper:
    """In place of a context: a fit that asks for its model sleeps, and ends by saying which process it ran in."""

    seconds: float
    experiment: str = "sleep"

    @property
    def recipes(self) -> str:
        time.sleep(self.seconds)
        raise ValueError(os.getpid())


def main(num_fits: tuple[int, ...] = (100, 300, 1000), num_naps: int = 40, nap_seconds: float = 0.5) -> None:
    """Print what a fit costs that does nothing, for each number of them, then how long the naps take on two workers."""
    with tempfile.TemporaryDirectory() as folder:
        execution = ExecutionConfig(address="local")
        ray.init(address="local", num_cpus=NUM_SLOTS, include_dashboard=False, log_to_driver=False)
        with connected(execution, Store(Path(folder))) as engine:
            for number in num_fits:
                seconds, _ = run(engine, number, 0.0)
                print(
                    f"{number:6,} fits of nothing: {seconds:7.1f} s, {1000 * seconds / number:6.1f} ms a fit",
                    flush=True,
                )
            seconds, per_process = run(engine, num_naps, nap_seconds)
            ideal = num_naps * nap_seconds / NUM_SLOTS
            print(
                f"{num_naps:6,} fits of {nap_seconds:g} s: {seconds:5.1f} s, {seconds / ideal:.2f} of the ideal; "
                f"by process {per_process}"
            )
        ray.shutdown()


def run(engine: Any, number: int, nap_seconds: float) -> tuple[float, list[int]]:
    """Wall seconds of so many fits, and how many each worker process did."""
    fits = [PlannedFit(FitSpec(f"fit {index}", np.arange(100), index), ()) for index in range(number)]
    start = time.perf_counter()
    failed = engine.begin_fits(cast(TrialContext, Sleeper(nap_seconds)), fits, lambda event: None).wait()
    seconds = time.perf_counter() - start
    assert len(failed) == number
    processes = [failure.error for failure in failed]
    return seconds, sorted((processes.count(process) for process in set(processes)), reverse=True)


if __name__ == "__main__":
    tyro.cli(main)
