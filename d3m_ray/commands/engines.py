"""What an experiment runs on, as its configuration says, and who watches it there."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final

from d3m_ray.errors import InputError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.store.store import Store
from d3m_ray.version import __version__

if TYPE_CHECKING:
    from d3m_ray.experiment.plan import Prepared
    from d3m_ray.experiment.progress import Progress
    from d3m_ray.trials.engine import Engine
    from d3m_ray.trials.trial import TrialContext

LOCAL: Final = "local"


def follow(prepared: "Prepared", progress: "Progress") -> None:
    """Have the trackers that the configuration names watch the run. Raises InputError where one cannot be used."""
    from d3m_ray.experiment.tracking import Tracking, trackers_of

    context = prepared.context
    for tracker in trackers_of(prepared.config, context.experiment):
        progress.watch(Tracking(tracker, context.store, context.experiment))


def check_cluster(config: ExperimentConfig, store: Store, progress: "Progress", may_be_done: bool = True) -> None:
    """Ask for a sign of life at the address of Ray, in a moment, before torch and the model are loaded, in many.

    Raises ConnectionError where none answers, InputError where none could be started here. Where the experiment
    `may_be_done`, since the store holds trials, that is said as a warning: what is finished joins no cluster.
    """
    if config.execution.engine == LOCAL:
        return
    from d3m_ray.cluster.addresses import check_address

    try:
        check_address(config.execution.address)
    except (ConnectionError, InputError) as error:
        if not (may_be_done and store.keys("trials")):
            raise
        progress.stage(f"warning: {error}; without it the run ends as soon as there is something to train or score")


@contextmanager
def engine_of(
    config: ExperimentConfig, context: "TrialContext", progress: "Progress", wanted: bool = True
) -> "Iterator[Engine]":
    """What the configuration runs on, left again at the end of the block; Ray is imported where it is asked for.

    Where all is stored, so that it is not `wanted`, a cluster is joined only if a damaged file is to be made again.
    This process loads what computes when the first fit or score is asked for.
    """
    from d3m_ray.trials.engine import EngineOnDemand

    is_local = config.execution.engine == LOCAL

    def join() -> "Engine":
        if is_local:
            return joined.enter_context(_local_engine(config.execution.cpus_per_trial))
        from d3m_ray.cluster.engine import connected
        from d3m_ray.cluster.metrics import SweepMetrics

        about = about_run(config, context)
        ray_engine = connected(config.execution, context.store, progress.stage, about, progress.lost)
        engine = joined.enter_context(ray_engine)
        progress.watch(metrics := SweepMetrics(context.experiment))
        joined.callback(metrics.close)
        return engine

    with ExitStack() as joined:
        yield join() if wanted and not is_local else EngineOnDemand(join)


def about_run(config: ExperimentConfig, context: "TrialContext") -> dict[str, str]:
    """What Ray's dashboard tells of a run: nothing secret, as the URI of a store holds no password."""
    return {
        "job_name": context.experiment,
        "corpus": context.splits.name,
        "model": context.pretrained.name,
        "methods": " ".join(config.methods),
        "store": str(context.store),
        "d3m_ray": __version__,
    }


@contextmanager
def _local_engine(num_threads: int) -> "Iterator[Engine]":
    """The engine of this process, on as many threads as on Ray: sums of other parts round otherwise."""
    import torch

    from d3m_ray.trials.engine import LocalEngine

    threads = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield LocalEngine()
    finally:
        torch.set_num_threads(threads)
