"""The command line of a sweep: flags, checks, the experiment on Ray, then its table and figures.

torch, transformers, matplotlib and Ray are imported where they are first needed: they take seconds, and what is wrong
with a flag is said without them, what is wrong with the corpus or the model without Ray.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro
from rich.console import Console

from d3m_ray.config import ExperimentConfig, LdsConfig
from d3m_ray.errors import InputError
from d3m_ray.protocol import WARNING, follow_thesis
from d3m_ray.store import Store, StoreError, refused

if TYPE_CHECKING:
    from d3m_ray.experiment import Outcome

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130

Config = TypeVar("Config", ExperimentConfig, LdsConfig)


def run_sweep(description: str, defaults: ExperimentConfig, arguments: list[str] | None = None) -> None:
    """Parse the flags over `defaults`, run, and show the results; ends the process with an exit status.

    0: every trial is stored; 1: some failed; 2: an input breaks a rule; 130: interrupted, the same command goes on.
    """
    _main(description, defaults, arguments, lambda config: _sweep(config, defaults))


def run_lds_sweep(description: str, defaults: LdsConfig, arguments: list[str] | None = None) -> None:
    """As `run_sweep`, for the linear datamodeling scores of the methods."""
    _main(description, defaults, arguments, _lds_sweep)


def _main(description: str, defaults: Config, arguments: list[str] | None, run: Callable[[Config], int]) -> None:
    console = Console(stderr=True)
    try:
        config = tyro.cli(
            tyro.conf.configure(
                tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands, tyro.conf.OmitSubcommandPrefixes
            )(type(defaults)),
            description=description,
            default=defaults,
            args=arguments,
        )
        status = run(config)
    except (InputError, StoreError, ConnectionError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        status = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        console.print("interrupted: what was done is stored, the same command goes on from there")
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _sweep(config: ExperimentConfig, defaults: ExperimentConfig) -> int:
    numbers_chosen = config.num_removed != defaults.num_removed
    if config.protocol == "thesis":
        config = follow_thesis(config, defaults)
        Console(stderr=True).print(WARNING, style="yellow", highlight=False)
    store = Store(config.store)
    from d3m_ray.experiment import run_experiment
    from d3m_ray.planning import prepare
    from d3m_ray.progress import Progress

    with Progress() as progress:
        prepared = prepare(config, store, progress, numbers_chosen)
        from d3m_ray.cluster.engine import connected

        with connected(config.execution, store) as engine:
            outcome = run_experiment(prepared, engine, progress)
    show_results(store, outcome, config.figures or default_figures(store))
    return _report_failures(outcome)


def _lds_sweep(config: LdsConfig) -> int:
    store = Store(config.experiment.store)
    from d3m_ray.lds import prepare_lds, run_lds
    from d3m_ray.progress import Progress

    with Progress() as progress:
        prepared = prepare_lds(config, store, progress)
        from d3m_ray.cluster.engine import connected

        with connected(config.experiment.execution, store) as engine:
            outcome = run_lds(prepared, engine, progress)
    show_lds(store, outcome, config.experiment.figures or default_figures(store))
    return _report_failures(outcome)


def _report_failures(outcome: "Outcome") -> int:
    for failure in outcome.failed:
        print(f"failed: fit {failure.fit_key}: {failure.error}", file=sys.stderr)
    if outcome.failed:
        print("the same command tries the failed fits again", file=sys.stderr)
    return EXIT_FAILED if outcome.failed else 0


def default_figures(store: Store) -> Path:
    """The folder for tables and figures: in the store where that is a local folder, else here."""
    return Path("figures") if "://" in str(store) else Path(str(store)) / "figures"


@refused("the folder of tables and figures", "written")
def show_results(store: Store, outcome: "Outcome", parent: Path) -> None:
    """Print the summary table and what speaks against it; write both, figures and group distribution below `parent`."""
    from d3m_ray.analysis.distributions import draw_group_distribution
    from d3m_ray.analysis.figures import write_figures
    from d3m_ray.analysis.tables import render_summary, write_summary
    from d3m_ray.data import distribution_table

    folder = parent / outcome.experiment
    summary = write_summary(store, outcome.experiment, folder / "summary.csv")
    distribution_table(outcome.splits).to_csv(folder / "distribution.csv", index=False)
    draw_group_distribution(outcome.splits, folder)
    write_figures(store, outcome.experiment, folder)
    Console().print(render_summary(summary, title=f"{outcome.experiment}, test"))
    _show_caveats(store, outcome.experiment, folder)
    print(f"results: {store}/trials (pandas.read_parquet)\ntable and figures: {folder}")


@refused("the folder of tables and figures", "written")
def show_lds(store: Store, outcome: "Outcome", parent: Path) -> None:
    """Print the table of linear datamodeling scores and what speaks against it, and write both below `parent`."""
    from d3m_ray.analysis.datamodeling import render_lds, write_lds

    folder = parent / outcome.experiment
    table = write_lds(store, outcome.experiment, folder / "lds.csv")
    Console().print(render_lds(table, title=f"{outcome.experiment}, val"))
    _show_caveats(store, outcome.experiment, folder)
    print(f"results: {store}/lds (pandas.read_parquet)\ntable: {folder}")


def _show_caveats(store: Store, experiment: str, folder: Path) -> None:
    """Print what speaks against a finding, and write it into the folder and into the experiment's record."""
    from d3m_ray.analysis.caveats import find_caveats, write_caveats

    caveats = find_caveats(store, experiment)
    write_caveats(caveats, folder / "caveats.txt")
    store.write_caveats(experiment, caveats)
    for caveat in caveats:
        Console().print(f"caution: {caveat}", style="yellow", highlight=False, markup=False, soft_wrap=True)
