"""The machines of a cluster: whether they offer what a worker takes, and whether all of them see the store."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private import ray_constants
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from d3m_ray.errors import InputError, reason
from d3m_ray.store.errors import StoreError
from d3m_ray.store.provenance import software
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import ExecutionConfig
from d3m_ray.version import __version__
from d3m_ray.waiting import Say, announced
from d3m_ray.wording import counted

NODE_SECONDS = 60  # for a machine of the cluster to run a task that takes no core
TERMS = "every machine of a cluster has this package, at one version, and reads and writes the store"
NUM_LOOKS, LOOK_SECONDS = 3, 5.0  # at a store from a machine that has joined, and between two: it may be out of reach


def check_this_machine_offers(execution: ExecutionConfig) -> None:
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


def check_cluster_offers(execution: ExecutionConfig, say: Say) -> None:
    """What no machine of a joined cluster has is refused where no machine can come, and else told."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    num_cpus = execution.cpus_per_trial
    for taker, num_gpus in (
        ("a worker that trains", execution.gpus_per_trial),
        ("a worker that scores", execution.gpus_per_worker),
    ):
        offers = (node["Resources"] for node in nodes)
        if any(offer.get("CPU", 0) >= num_cpus and offer.get("GPU", 0) >= num_gpus for offer in offers):
            continue
        lacking = f"no machine of the cluster has the {num_cpus:g} CPU and {num_gpus:g} GPU that {taker} takes"
        if not may_grow([node["NodeID"] for node in nodes]):
            raise InputError(
                f"{lacking}, and no autoscaler starts one: lower --cpus-per-trial, --gpus-per-trial or "
                "--gpus-per-worker, or join such a machine to the cluster with ray start"
            )
        say(
            f"{lacking}: the run ends unless one is started within {execution.max_wait_seconds:.0f} s of need "
            "(--max-wait-seconds)"
        )


def may_grow(node_ids: Sequence[str], where_unknown: bool = True) -> bool:
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


@dataclass(frozen=True)
class Terms:
    """What a machine that joins while a sweep runs is held to: this package, its version, and the store."""

    store: Store
    probe: str
    """The name of a file that is in the store as long as the sweep runs, and in no other folder."""
    version: str

    def check(self) -> None:
        """Raises InputError, which says why, where the machine that this runs on is not to take part."""
        for num_looks_left in range(NUM_LOOKS - 1, -1, -1):
            told = _look(self.store, self.probe)
            why, _ = _why_not(told, self.version)
            if not why:
                return
            if not told["lacks"] or not num_looks_left:
                raise InputError(why)
            time.sleep(LOOK_SECONDS)


@contextmanager
def every_machine_checked(store: Store, say: Say) -> Iterator[Terms]:
    """What machines are held to that join while the block runs; those that are there now have met it.

    Every machine of a joined cluster needs this package, at this version, and has to read and write the store.
    Asked of all at once, by a task that looks for a file of a name that no other folder holds. Raises InputError where
    one lacks something, ConnectionError where one does not answer. `say` is told of one that leaves meanwhile, and of
    other versions of libraries.
    """
    look = ray.remote(_look)
    names = _machines()
    with store.probe() as probe:
        asked = {
            node: look.options(
                num_cpus=0,
                name="see the store",
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(store, probe)
            for node in names
        }
        with announced(f"{counted(len(asked), 'machine')} of the cluster to look for the store", say):
            ray.wait(list(asked.values()), num_returns=len(asked), timeout=NODE_SECONDS)
        for node, answer in asked.items():
            _settle(node, names[node], answer, say)
        yield Terms(store, probe, __version__)


def num_slots(nodes: Sequence[Mapping[str, Any]], cpus: float, gpus: float) -> int:
    """Workers of so many CPUs and GPUs for which these machines are large enough, were nothing else on them."""
    num_fitting = 0
    for offer in (node["Resources"] for node in nodes):
        of_cpus = int(offer.get("CPU", 0) / cpus)
        num_fitting += min(of_cpus, int(offer.get("GPU", 0) / gpus)) if gpus else of_cpus
    return num_fitting


def _look(store: Store, probe: str) -> dict[str, Any]:
    """Of the machine that this runs on: its `software`, and what keeps it from the store."""
    try:
        store.check_writable()
        lacks = "" if store.sees(probe) else f"does not see {store}"
    except StoreError as error:
        lacks = str(error)
    return software() | {"lacks": lacks}


def _why_not(told: Mapping[str, Any], version: str) -> tuple[str, str]:
    """What keeps a machine from taking part, by what `_look` found there, and the fix; empty where nothing does."""
    if told["package_version"] != version:
        return f"has version {told['package_version']} of this package and not {version}", "install the same there"
    return told["lacks"], "name a shared folder or a bucket, --store s3://BUCKET/NAME"


def _settle(node: str, name: str, answer: Any, say: Say) -> None:
    """Read what a machine answered, and refuse one that would lose results."""
    try:
        told = ray.get(answer, timeout=0)
    except RayError as error:
        if node not in _machines():
            say(f"machine {name} has left the cluster: the run goes on without it")
            return
        if isinstance(error, GetTimeoutError):
            raise ConnectionError(
                f"every machine of a cluster answers within {NODE_SECONDS} s; {name} does not: end Ray there "
                "(ray stop), or read its logs"
            ) from error
        why = reason(error) if isinstance(error, RayTaskError) else type(error).__name__
        raise InputError(
            f"{TERMS}; {name} does not run it ({why}): install it there, at the version of this machine"
        ) from error
    why, fix = _why_not(told, __version__)
    if why:
        raise InputError(f"{TERMS}; {name}: {why}: {fix}")
    if others := _other_versions(told, software()):
        say(f"machine {name} has {others}: what it computes may be rounded otherwise")


def _other_versions(told: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """In words, the libraries and the commit of a machine that differ from those of this one."""
    theirs, ours = ({**each["library_versions"], "d3m_ray": each["commit"]} for each in (told, here))
    names = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    return ", ".join(f"{name} {theirs[name]} where this one has {ours[name]}" for name in names)


def _machines() -> dict[str, str]:
    """The address of each machine that is part of the cluster now, by its id."""
    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
