"""Where the work runs."""

import re
from dataclasses import dataclass
from typing import Literal

from d3m_ray.records import DeviceKind
from d3m_ray.rules import check, check_values

EngineName = Literal["ray", "local"]
_ADDRESS = re.compile(r"auto|local|(ray://)?[^\s/]+:\d{1,5}")


def is_address(text: str) -> bool:
    """Whether it names a cluster: auto, local, HOST:PORT or ray://HOST:PORT."""
    return _ADDRESS.fullmatch(text) is not None


@dataclass(frozen=True)
class ExecutionConfig:
    """Where the work runs, in workers: processes that train fits and score, one in each slot of --cpus-per-trial cores.

    Of it the kind of device alone enters keys. Environment variables preset most of it: docs/running.md lists them.
    """

    engine: EngineName = "ray"
    """ray: fits and attribution on the cores and GPUs of a cluster, or of this machine; local: one after the other in
    this process, without Ray, on --cpus-per-trial threads."""
    address: str = "auto"
    """Ray to join: auto (a running cluster, else one on this machine), local (always this machine), HOST:PORT or
    ray://HOST:PORT."""
    num_workers: int | None = None
    """Workers that score at once, at most; left out, all of them. Fits are trained by all in any case."""
    gpus_per_worker: float = 0
    """GPUs, or a fraction of one, that a worker takes to score (attribution)."""
    gpus_per_trial: float = 0
    """GPUs, or a fraction of one, that a worker takes to train a fit."""
    cpus_per_trial: int = 1
    """Cores, and so torch threads, of a worker."""
    max_wait_seconds: float = 1200
    """How long to wait for a cluster to have room for a worker; an autoscaler takes minutes."""
    stop_on_usr1: bool = False
    """End at SIGUSR1 as at Ctrl-C: SLURM's warning before the time limit (sbatch --signal)."""
    debug: bool = False
    """Show the traceback of an error, not only what is wrong."""

    @property
    def trial_device(self) -> DeviceKind:
        """What fits are trained on."""
        return "cuda" if self.gpus_per_trial else "cpu"

    @property
    def worker_device(self) -> DeviceKind:
        """What attribution computes on."""
        return "cuda" if self.gpus_per_worker else "cpu"

    def __post_init__(self) -> None:
        check_values(self)
        check(is_address(self.address), "--address is auto, local, HOST:PORT or ray://HOST:PORT", self.address)
        workers_ok = self.num_workers is None or self.num_workers >= 1
        check(workers_ok, "--num-workers is at least 1, or left out", self.num_workers)
        check(self.gpus_per_worker >= 0, "--gpus-per-worker is at least 0", self.gpus_per_worker)
        check(self.gpus_per_trial >= 0, "--gpus-per-trial is at least 0", self.gpus_per_trial)
        check(self.cpus_per_trial >= 1, "--cpus-per-trial is at least 1", self.cpus_per_trial)
        check(self.max_wait_seconds >= 0, "--max-wait-seconds is at least 0", self.max_wait_seconds)
