"""The command line of a sweep: flags, checks, the experiment on Ray, then its table and figures.

torch, transformers, matplotlib and Ray are imported where they are first needed: they take seconds, and what is wrong
with a flag is said without them, what is wrong with the corpus or the model without Ray.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro
from rich.console import Console

from d3m_ray.commands.api import engine_for, planned
from d3m_ray.commands.engines import check_cluster, engine_of, follow
from d3m_ray.commands.flags import narrowed, parsed, plain, with_environment, with_shares
from d3m_ray.commands.results import FIGURES, default_folder, show_results
from d3m_ray.commands.signals import heed_warnings
from d3m_ray.commands.terminal import EXIT_FAILED, end, exit_status, on_standard_output, say, tell_of_broken_plugins
from d3m_ray.errors import InputError, RunError
from d3m_ray.experiment.config import ExperimentConfig
from d3m_ray.experiment.studies import LdsConfig, LeaderboardConfig
from d3m_ray.experiment.thesis import WARNING, follow_thesis
from d3m_ray.store.errors import StoreError
from d3m_ray.store.files import check_writable_folder, expanded
from d3m_ray.store.store import Store
from d3m_ray.waiting import announced

if TYPE_CHECKING:
    from d3m_ray.experiment.run import Outcome

WRITTEN_SUFFIXES = (".csv", ".txt", ".html", ".pdf", ".png", ".svg")

FLAGS_OF_ARMS = {"num_removed": "--removal-shares", "seeds": "--removal-seeds"}
"""What an experiment asks of its arms, by the flag that asks the like of an LDS."""

Config = TypeVar("Config", ExperimentConfig, LdsConfig, LeaderboardConfig)
Judged = LdsConfig | LeaderboardConfig


def run_sweep(
    description: str, defaults: ExperimentConfig, arguments: list[str] | None = None, name: str | None = None
) -> None:
    """Parse the flags over `defaults`, run, and show the results; ends the process with an exit status.

    `name` is what the help calls the command, the script by default.
    0: every trial is stored; 1: some failed; 2: an input breaks a rule; 130, 143, 129: Ctrl-C, SIGTERM,
    SIGHUP, and the same command goes on.
    """
    _main(description, defaults, arguments, name, lambda config: _sweep(config, defaults))


def run_plan(
    description: str, defaults: ExperimentConfig, arguments: list[str] | None = None, name: str | None = None
) -> None:
    """Parse the flags as `run_sweep`, and show what it would train and what is stored; trains and writes nothing."""
    _main(description, defaults, arguments, name, lambda config: _show_plan(config, defaults))


def run_lds_sweep(
    description: str, defaults: LdsConfig, arguments: list[str] | None = None, name: str | None = None
) -> None:
    """As `run_sweep`, for the linear datamodeling scores of the methods."""
    _main(description, defaults, arguments, name, lambda config: _lds_studies(config, defaults, [config]))


def run_leaderboard_sweep(
    description: str, defaults: LeaderboardConfig, arguments: list[str] | None = None, name: str | None = None
) -> None:
    """As `run_lds_sweep`, for the two LDS, under the base models' seeds and across seeds, that rank the methods."""
    _main(description, defaults, arguments, name, lambda config: _lds_studies(config, defaults, config.studies()))


def _main(
    description: str, defaults: Config, arguments: list[str] | None, name: str | None, run: Callable[[Config], int]
) -> None:
    given = with_shares(sys.argv[1:] if arguments is None else arguments)

    def work() -> int:
        tell_of_broken_plugins()
        preset = narrowed(with_environment(defaults))
        markers = (tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands, tyro.conf.OmitSubcommandPrefixes)
        settings = tyro.conf.configure(*markers)(type(preset))
        return run(
            plain(
                parsed(
                    lambda: tyro.cli(settings, prog=name, description=description, default=preset, args=given), given
                )
            )
        )

    end(exit_status(work, debug="--debug" in given))


def _show_plan(config: ExperimentConfig, defaults: ExperimentConfig) -> int:
    config, numbers_chosen = _meant(config, defaults)
    shown = repr(planned(config, numbers_chosen))
    with on_standard_output():
        Console().print(shown, highlight=False, markup=False, soft_wrap=True)
    return 0


def _meant(config: ExperimentConfig, defaults: ExperimentConfig) -> tuple[ExperimentConfig, bool]:
    """The settings with those of the thesis's protocol where it is asked for, and whether the numbers were chosen.

    The protocol stands for numbers of its own, which somebody chose by naming it. Where the defaults have a name, they
    are those of an experiment that was begun: its numbers were chosen then, and its protocol stands in its settings.
    """
    is_begun = defaults.experiment is not None
    if config.protocol == "thesis":
        say(WARNING, "yellow")
        return (config if is_begun and defaults.protocol == "thesis" else follow_thesis(config, defaults)), True
    return config, is_begun or config.num_removed != defaults.num_removed


def _sweep(config: ExperimentConfig, defaults: ExperimentConfig) -> int:
    config, numbers_chosen = _meant(config, defaults)
    heed_warnings(config.execution)
    store = _open(config)
    from d3m_ray.experiment.progress import Progress
    from d3m_ray.experiment.story import prepare, run_experiment

    with Progress() as progress:
        check_cluster(config, store, progress)
        prepared = prepare(config, store, progress, numbers_chosen)
        _check_figures(config, store, prepared.context.experiment)
        follow(prepared, progress)
        chosen = engine_for(prepared, progress)
        with _failing(), chosen as engine:
            outcome = run_experiment(prepared, engine, progress)
    with _failing():
        return _finish(config, store, outcome, "trials")


def _lds_studies(config: Judged, defaults: Judged, studies: Sequence[LdsConfig]) -> int:
    """One LDS after another, of the same experiment: nothing runs before all of them are checked."""
    experiment = config.experiment
    _refuse_flags_of_arms(experiment, defaults.experiment)
    heed_warnings(experiment.execution)
    store = _open(experiment)
    from d3m_ray.experiment.progress import Progress

    with Progress() as progress:
        check_cluster(experiment, store, progress, may_be_done=False)
        from d3m_ray.experiment.lds import another_study, joined, prepare_lds, run_lds  # which loads torch

        first = prepare_lds(studies[0], store, progress)
        prepared = [first, *(another_study(first, config) for config in studies[1:])]
        _check_figures(experiment, store, first.context.experiment)
        follow(first.removals, progress)
        with _failing(), engine_of(experiment, first.context, progress) as engine:
            outcomes = [run_lds(study, engine, progress) for study in prepared]
    with _failing():
        return _finish(experiment, store, joined(outcomes), "lds")


def _refuse_flags_of_arms(experiment: ExperimentConfig, defaults: ExperimentConfig) -> None:
    """Raises InputError at a flag that an LDS does not read: whoever gave it expects it to act."""
    for name, instead in FLAGS_OF_ARMS.items():
        given = getattr(experiment, name)
        if given != getattr(defaults, name):
            raise InputError(
                f"--{name.replace('_', '-')} is of a sweep's arms, and an LDS has none, received "
                f"{' '.join(map(str, given))}; leave it out: what is removed by alignment is for {instead} to say"
            )


def _open(config: ExperimentConfig) -> Store:
    """The store, where it and the folder of the figures can be written to; a wait for it is announced."""
    with announced(f"the store {config.store} to answer"):
        store = Store(config.store)
        store.check_writable()
    check_writable_folder(figures_folder(config, store), FIGURES)
    return store


def figures_folder(config: ExperimentConfig, store: Store) -> Path:
    """The folder for tables and figures: as named, else in the store where that is a local folder, else here."""
    if config.figures is not None:
        return expanded(config.figures, FIGURES)
    return default_folder(store)


def _check_figures(config: ExperimentConfig, store: Store, experiment: str) -> None:
    """Raises StoreError where an experiment's tables could not be written when it is done."""
    folder = figures_folder(config, store) / experiment
    check_writable_folder(folder, FIGURES)
    there = folder.iterdir() if folder.is_dir() else ()
    in_the_way = next((path for path in there if path.suffix in WRITTEN_SUFFIXES and path.is_dir()), None)
    if in_the_way is not None:
        raise StoreError(f"{FIGURES} holds tables; {in_the_way} is a folder: move it, or name another --figures")


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """From here on a store that cannot be used is told with what is left to do: it could be used at the start."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{error}; the same command goes on from what is stored") from error


def _finish(config: ExperimentConfig, store: Store, outcome: "Outcome", table: str) -> int:
    """Show what there is, then what failed and why; the exit status. `table` is where the results are."""
    from d3m_ray.experiment.failures import told

    if store.read_all(table, columns=["experiment"], filters=[("experiment", "==", outcome.experiment)]).empty:
        kind = "test trial" if table == "trials" else "LDS"
        say(f"no {kind} of {outcome.experiment} could be made: there is no table to show")
    else:
        folder = figures_folder(config, store)
        try:
            show_results(store, outcome.experiment, folder)
        except StoreError as error:
            raise RunError(f"the results are in {store}, but not in {folder}: {error}") from error
    if config.execution.debug:
        traces = [failure.trace for failure in outcome.failed] + [each.trace for each in outcome.unscored]
        sys.stderr.writelines(dict.fromkeys(traces))
    for line in told(outcome.failed, outcome.unscored):
        say(f"failed: {line}", "red")
    if outcome.failed or outcome.unscored:
        say("the same command tries again what failed; --debug shows where it did")
        return EXIT_FAILED
    return 0
