"""The engine on Ray: join or start a cluster, share out its cores and GPUs."""

import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import cast

import ray

from d3m_ray.cluster.pool import RayPool
from d3m_ray.cluster.sweep import run_fits
from d3m_ray.config import ExecutionConfig
from d3m_ray.engine import FailedFit, OnFit, PlannedFit
from d3m_ray.errors import InputError
from d3m_ray.pool import OnProgress, WorkerPool
from d3m_ray.store import Store
from d3m_ray.trial import TrialContext

ANSWER_SECONDS = 10


@contextmanager
def connected(execution: ExecutionConfig, store: Store) -> Iterator["RayEngine"]:
    """The engine of the cluster that `execution` names, left again at the end of the block.

    Raises ConnectionError where the cluster cannot be joined, InputError where it lacks what a worker or a trial takes,
    or where its machines do not all see the store.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joined_here = not ray.is_initialized()
    try:
        if joined_here and _join(execution.address):
            _check_this_machine_offers(execution)
        _check_every_node_sees(store)
        yield RayEngine(execution)
    finally:
        if joined_here:
            ray.shutdown()


def _join(address: str) -> bool:
    """Join the cluster at this address; whether it was started here, for this run."""
    if address == "auto":
        # Ray's own "auto" would also join what another sweep began for itself, and would end with that sweep.
        address = os.environ.get("RAY_ADDRESS") or _begun_with_ray_start() or "local"
    elif address != "local" and not _answers(address):
        raise ConnectionError(
            f"--address names a running cluster, auto or local; nothing answers at {address}: start the cluster with "
            "ray start or ray up, or leave --address out"
        )
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return address == "local"


def _begun_with_ray_start() -> str | None:
    """The address that `ray start` left on this machine, if a cluster still answers there."""
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.exists() else ""
    return address if address and _answers(address) else None


def _answers(address: str) -> bool:
    """Whether something listens there. Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, ValueError):
        return False
    return True


def _check_this_machine_offers(execution: ExecutionConfig) -> None:
    """A request that this machine cannot meet would wait for ever. Another cluster may yet start machines for it."""
    offered = ray.cluster_resources()
    for resource, flag, asked in (
        ("CPU", "--cpus-per-trial", execution.cpus_per_trial),
        ("GPU", "--gpus-per-trial", execution.gpus_per_trial),
        ("GPU", "--gpus-per-worker", execution.gpus_per_worker * (execution.num_workers or 1)),
        ("CPU", "--num-workers times --cpus-per-trial", execution.cpus_per_trial * (execution.num_workers or 1)),
    ):
        if asked > offered.get(resource, 0):
            raise InputError(
                f"this machine has {offered.get(resource, 0):g} {resource}; {flag} asks for {asked:g}: lower it"
            )


def _check_every_node_sees(store: Store) -> None:
    """A folder of one machine is no store for several. Asked of every node by a task that looks for the experiments."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    expected = sorted(store.read_experiments())
    look = ray.remote(lambda: sorted(store.read_experiments()))
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    for node in nodes:
        here = look.options(num_cpus=0, name="see the store", scheduling_strategy=strategy(node["NodeID"], soft=False))
        if ray.get(here.remote()) != expected:
            raise InputError(
                f"every machine of a cluster reads and writes the store; {node['NodeManagerAddress']} does not see "
                f"{store}: name a shared folder or a bucket, --store s3://BUCKET/NAME"
            )


class RayEngine:
    """Attribution on actors, fits under Ray Tune."""

    def __init__(self, execution: ExecutionConfig) -> None:
        self._execution = execution

    def pool(self, on_progress: OnProgress) -> AbstractContextManager[WorkerPool]:
        execution = self._execution
        pool = RayPool(
            execution.num_workers or self._default_num_workers(),
            execution.cpus_per_trial,
            execution.gpus_per_worker,
            on_progress,
        )
        return cast(AbstractContextManager[WorkerPool], pool)

    def run_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> list[FailedFit]:
        return run_fits(context, fits, on_fit, self._execution.cpus_per_trial, self._execution.gpus_per_trial)

    def _default_num_workers(self) -> int:
        """As many as the cluster's GPUs, or cores, hold now; at least one, which an autoscaler makes room for."""
        resources = ray.cluster_resources()
        if self._execution.gpus_per_worker:
            return max(1, int(resources.get("GPU", 0) / self._execution.gpus_per_worker))
        return max(1, int(resources.get("CPU", 1) / self._execution.cpus_per_trial))
