"""The engine on Ray: join or start a cluster, share out its cores and GPUs."""

import json
import logging
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import ray
from ray._private import ray_constants
from ray.experimental import internal_kv

from d3m_ray.cluster.fleet import Fleet
from d3m_ray.cluster.pool import RayPool
from d3m_ray.cluster.sweep import TuneRun
from d3m_ray.errors import InputError
from d3m_ray.pool import OnProgress, WorkerPool
from d3m_ray.store.store import Store
from d3m_ray.trials.engine import OnFit, PendingFits, PlannedFit
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.trials.trial import TrialContext
from d3m_ray.waiting import Say, announced, say_plainly

ANSWER_SECONDS = 10  # for a port to answer at all
MOST_ASKED_FOR = 32  # workers beyond what a cluster has room for, for which its autoscaler may start machines
NODE_SECONDS = 60  # for a machine of the cluster to run a task that takes no core
HTTP2_SETTINGS = b"\x04"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0\0\0\0\0"
# Ray's longest path below its folder, of which the system takes 107 bytes (unix(7)).
SOCKET_PATH = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MAX_SOCKET_BYTES = 107


@contextmanager
def connected(execution: ExecutionConfig, store: Store, say: Say = say_plainly) -> Iterator["RayEngine"]:
    """The engine of the cluster that `execution` names, left again at the end of the block.

    Raises ConnectionError where the cluster cannot be joined or started, InputError where this machine lacks what a
    worker or a trial takes, or where a cluster's machines do not all see the store. `say` is told of every wait.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    joined_here = not ray.is_initialized()
    try:
        if joined_here:
            if _join(execution.address, say):
                _check_this_machine_offers(execution)
            else:
                _check_cluster_offers(execution, say)
        _check_every_node_sees(store, say)
        with RayEngine(execution, say) as engine:
            yield engine
    finally:
        if joined_here:
            ray.shutdown()


def _join(address: str, say: Say) -> bool:
    """Join the cluster at this address; whether it was started here, for this run."""
    named = "--address"
    if address == "auto" and (preset := os.environ.get("RAY_ADDRESS", "").strip()):
        named, address = "RAY_ADDRESS", preset
    if address == "auto":
        # Ray's own "auto" would also join what another sweep began for itself, and would end with that sweep.
        address = _begun_with_ray_start() or "local"
    if address == "local":
        _check_temporary_folder()
    elif not _answers(address):
        otherwise = "unset RAY_ADDRESS" if named == "RAY_ADDRESS" else "leave --address out"
        raise ConnectionError(
            f"{named} names a running cluster, auto or local; no Ray answers at {address}: start the cluster with "
            f"ray start or ray up and name the address that it tells, or {otherwise}"
        )
    what = "Ray to start on this machine" if address == "local" else f"Ray at {address} to let this process in"
    try:
        with announced(what, say):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a bare one where a node takes too long to start
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = "see RAY_TMPDIR, the folder of its files" if address == "local" else f"see what listens at {address}"
        raise ConnectionError(f"gave up waiting for {what}: {reason}; {fix}") from error
    return address == "local"


def _check_temporary_folder() -> None:
    """Ray's sockets lie below its folder, and the system takes no long path for one."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    num_bytes = len(os.fsencode(str(Path(folder) / SOCKET_PATH)))
    if num_bytes > MAX_SOCKET_BYTES:
        raise InputError(
            f"RAY_TMPDIR is at most {MAX_SOCKET_BYTES - len(SOCKET_PATH) - 1} bytes long, so that Ray's sockets have "
            f"a path of {MAX_SOCKET_BYTES}; received {folder!r}: name a shorter folder"
        )


def _begun_with_ray_start() -> str | None:
    """The address that `ray start` left on this machine, if a cluster still answers there."""
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.exists() else ""
    return address if address and _answers(address) else None


def _answers(address: str) -> bool:
    """Whether a server there speaks gRPC, as Ray's does. Ray itself would try for minutes, also to talk to a mute one.

    A gRPC server answers the greeting of HTTP/2 with a frame of its settings, type 4 (RFC 9113, sections 3.4 and 6.5).
    """
    host, _, port = re.sub(r"^\w+://", "", address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            return connection.recv(4)[3:] == HTTP2_SETTINGS
    except (OSError, ValueError, OverflowError):
        return False


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


def _check_cluster_offers(execution: ExecutionConfig, say: Say) -> None:
    """What no machine of a joined cluster has is refused where no machine can come, and else told."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    num_cpus = execution.cpus_per_trial
    for taker, num_gpus in (
        ("a trial", execution.gpus_per_trial),
        ("an attribution worker", execution.gpus_per_worker),
    ):
        offers = (node["Resources"] for node in nodes)
        if any(offer.get("CPU", 0) >= num_cpus and offer.get("GPU", 0) >= num_gpus for offer in offers):
            continue
        lacking = f"no machine of the cluster has the {num_cpus:g} CPU and {num_gpus:g} GPU that {taker} takes"
        if not _may_grow([node["NodeID"] for node in nodes]):
            raise InputError(
                f"{lacking}, and no autoscaler starts one: lower --cpus-per-trial, --gpus-per-trial or "
                "--gpus-per-worker, or join such a machine to the cluster with ray start"
            )
        say(
            f"{lacking}: the run ends unless one is started within {execution.max_wait_seconds:.0f} s of need "
            "(--max-wait-seconds)"
        )


def _may_grow(node_ids: Sequence[str], where_unknown: bool = True) -> bool:
    """Whether the joined cluster has an autoscaler; `where_unknown` if it does not say.

    On a cluster of machines that were started by hand Ray has one too, which only watches: it takes each machine for
    a type of its own, named after the machine's id.
    """
    status = json.loads(_autoscaling_status() or "{}")
    types = (status.get("autoscaler_report") or {}).get("active_nodes") or {}
    return not {f"node_{node_id}" for node_id in node_ids}.issuperset(types) if types else where_unknown


def _autoscaling_status() -> bytes | None:
    """What Ray's autoscaler says of itself, as JSON."""
    content: bytes | None = internal_kv._internal_kv_get(ray_constants.DEBUG_AUTOSCALING_STATUS)
    return content


def _check_every_node_sees(store: Store, say: Say) -> None:
    """A folder of one machine is no store for several. Asked of every node by a task that looks for the experiments."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    if len(nodes) < 2:
        return
    expected = sorted(store.read_experiments())
    look = ray.remote(lambda: sorted(store.read_experiments()))
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    for node in nodes:
        name = node["NodeManagerAddress"]
        here = look.options(num_cpus=0, name="see the store", scheduling_strategy=strategy(node["NodeID"], soft=False))
        try:
            with announced(f"machine {name} of the cluster to look for the store", say):
                seen = ray.get(here.remote(), timeout=NODE_SECONDS)
        except ray.exceptions.GetTimeoutError as error:
            raise ConnectionError(f"machine {name} of the cluster did not answer in {NODE_SECONDS} s") from error
        if seen != expected:
            raise InputError(
                f"every machine of a cluster reads and writes the store; {name} does not see "
                f"{store}: name a shared folder or a bucket, --store s3://BUCKET/NAME"
            )


class RayEngine:
    """Attribution on the workers of a fleet, and fits under Ray Tune, on the same workers where both take as much.

    Attribution is then lent each worker that ends its fit, while others are still at theirs. Where a fit takes other
    GPUs than attribution, the workers of the one are ended when the other begins, for they would keep the cores and
    GPUs, and every fit that was begun is waited for first. Use it in a `with` block, which ends the workers, and at
    an exception what they are at.
    """

    def __init__(self, execution: ExecutionConfig, say: Say = say_plainly) -> None:
        self._execution, self._say = execution, say
        self._fleet: Fleet | None = None
        self._runs: list[TuneRun] = []

    def __enter__(self) -> "RayEngine":
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs:
            run.stop()
        self._end_fleet()
        for run in self._runs:
            run.join()

    @contextmanager
    def pool(self, on_progress: OnProgress) -> Iterator[WorkerPool]:
        gpus = self._execution.gpus_per_worker
        num_workers = self._execution.num_workers or max(1, self._num_slots(gpus))
        with RayPool(self._fleet_of(gpus), num_workers, on_progress) as pool:
            yield cast(WorkerPool, pool)

    def begin_fits(self, context: TrialContext, fits: Sequence[PlannedFit], on_fit: OnFit) -> PendingFits:
        gpus = self._execution.gpus_per_trial
        num_slots = self._num_slots(gpus)
        if _may_grow([node["NodeID"] for node in ray.nodes() if node["Alive"]], where_unknown=num_slots == 0):
            num_slots += MOST_ASKED_FOR
        run = TuneRun(context, fits, on_fit, self._fleet_of(gpus), min(len(fits), max(1, num_slots)))
        self._runs = [*(begun for begun in self._runs if not begun.is_over), run]
        return run

    def _fleet_of(self, gpus: float) -> Fleet:
        """The workers that take so many GPUs each. Raises as `PendingFits.wait`."""
        if self._fleet is not None and self._fleet.gpus_per_worker != gpus:
            for run in self._runs:
                run.wait()
            self._end_fleet()
        if self._fleet is None:
            execution = self._execution
            self._fleet = Fleet(execution.cpus_per_trial, gpus, execution.max_wait_seconds, self._say)
        return self._fleet

    def _end_fleet(self) -> None:
        if self._fleet is not None:
            self._fleet.end()
            self._fleet = None

    def _num_slots(self, gpus: float) -> int:
        """Workers for which the machines of the cluster are large enough now, were nothing else on them."""
        num_slots = 0
        for offer in (node["Resources"] for node in ray.nodes() if node["Alive"]):
            of_cpus = int(offer.get("CPU", 0) / self._execution.cpus_per_trial)
            num_slots += min(of_cpus, int(offer.get("GPU", 0) / gpus)) if gpus else of_cpus
        return num_slots
