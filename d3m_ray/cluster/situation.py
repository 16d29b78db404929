"""What Ray tells of a cluster while work waits on it: which workers live, where one is, and who else is there."""

from collections.abc import Mapping
from typing import Any

import ray
from ray._private import state


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


def has_left(node: str) -> bool:
    """Whether Ray knows that the machine of this id is not part of the cluster any more."""
    return not any(each["Alive"] for each in ray.nodes() if each["NodeID"] == node)


def who_is_there() -> str:
    """In words, how much of the cluster is free, and which other drivers are on it."""
    total, free = ray.cluster_resources(), ray.available_resources()
    amounts = [f"{free.get(name, 0):g} of {total[name]:g} {name} free" for name in ("CPU", "GPU") if name in total]
    own = ray.get_runtime_context().get_job_id()
    others = [job for job in state.jobs() if not job["IsDead"] and job["JobID"] != own and job["DriverPid"]]
    named = [f"process {job['DriverPid']} of {job['DriverIPAddress']}" for job in others]
    return ", ".join(amounts or ["no machine with a CPU"]) + (f"; other drivers: {', '.join(named)}" if named else "")
