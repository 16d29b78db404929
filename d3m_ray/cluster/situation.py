"""What Ray tells of a cluster while work waits on it: which workers live, where one is, and who else is there."""

import socket
from collections.abc import Mapping
from typing import Any

import ray
import ray._private.worker
from ray._private import state

CONNECT_SECONDS = 1.0


def living(actors: Mapping[int, Any]) -> frozenset[int]:
    """The numbers of those of this job's actors that have a process; one counts until Ray misses its machine."""
    job = ray.JobID(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    alive = state.actors(job_id=job, actor_state_name="ALIVE")
    return frozenset(number for number, actor in actors.items() if actor._actor_id.hex() in alive)


def place_of(actor: Any) -> tuple[str, str] | None:
    """The id and the address of the machine that an actor was put on last; None where it never was."""
    address = state.actors(actor._actor_id.hex()).get("Address", {})
    node = address.get("NodeID", "")
    return (node, address["IPAddress"]) if node.strip("f") else None


def own_ray() -> tuple[str, int] | None:
    """The address and port of the raylet that this driver is attached to; None where it joined as ray://."""
    if ray._private.worker._global_node is None:
        return None
    here = ray.get_runtime_context().get_node_id()
    own = next(node for node in ray.nodes() if node["NodeID"] == here)
    return own["NodeManagerAddress"], own["NodeManagerPort"]


def is_gone(address: str, port: int) -> bool:
    """Whether nobody listens there any more. A machine that is slow, or behind a wall, may be there."""
    try:
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
            return False
    except ConnectionRefusedError:
        return True
    except OSError:
        return False


def who_is_there() -> str:
    """In words, how much of the cluster is free, and which other drivers are on it."""
    total, free = ray.cluster_resources(), ray.available_resources()
    amounts = [f"{free.get(name, 0):g} of {total[name]:g} {name} free" for name in ("CPU", "GPU") if name in total]
    own = ray.get_runtime_context().get_job_id()
    others = [job for job in state.jobs() if not job["IsDead"] and job["JobID"] != own and job["DriverPid"]]
    named = [f"process {job['DriverPid']} of {job['DriverIPAddress']}" for job in others]
    return ", ".join(amounts or ["no machine with a CPU"]) + (f"; other drivers: {', '.join(named)}" if named else "")
