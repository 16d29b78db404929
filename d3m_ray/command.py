"""The command line of a sweep: flags, the experiment on Ray, then its table and figures."""

import sys
from pathlib import Path

import tyro
from rich.console import Console

from d3m_ray.analysis.distributions import draw_group_distribution
from d3m_ray.analysis.figures import write_figures
from d3m_ray.analysis.tables import render_summary, write_summary
from d3m_ray.cluster.engine import connected
from d3m_ray.config import ExperimentConfig
from d3m_ray.data import distribution_table
from d3m_ray.errors import InputError
from d3m_ray.experiment import Outcome, run_experiment
from d3m_ray.progress import Progress
from d3m_ray.store import Store, StoreError

EXIT_FAILED, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 1, 2, 130


def run_sweep(description: str, defaults: ExperimentConfig, arguments: list[str] | None = None) -> None:
    """Parse the flags over `defaults`, run, and show the results; ends the process with an exit status.

    0: every trial is stored; 1: some failed; 2: an input breaks a rule; 130: interrupted, the same command goes on.
    """
    console = Console(stderr=True)
    try:
        config = tyro.cli(
            tyro.conf.configure(
                tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands, tyro.conf.OmitSubcommandPrefixes
            )(ExperimentConfig),
            description=description,
            default=defaults,
            args=arguments,
        )
        status = _run(config)
    except (InputError, StoreError, ConnectionError) as error:
        console.print(f"error: {error}", style="red", highlight=False, markup=False)
        status = EXIT_BAD_INPUT
    except KeyboardInterrupt:
        console.print("interrupted: what was done is stored, the same command goes on from there")
        status = EXIT_INTERRUPTED
    sys.exit(status)


def _run(config: ExperimentConfig) -> int:
    store = Store(config.store)
    with connected(config.execution, store) as engine, Progress() as progress:
        outcome = run_experiment(config, store, engine, progress)
    show_results(store, outcome, config.figures or default_figures(store))
    for failure in outcome.failed:
        print(f"failed: fit {failure.fit_key}: {failure.error}", file=sys.stderr)
    if outcome.failed:
        print("the same command tries the failed fits again", file=sys.stderr)
    return EXIT_FAILED if outcome.failed else 0


def default_figures(store: Store) -> Path:
    """The folder for tables and figures: in the store where that is a local folder, else here."""
    return Path("figures") if "://" in str(store) else Path(str(store)) / "figures"


def show_results(store: Store, outcome: Outcome, parent: Path) -> None:
    """Print the summary table, and write it, the figures and the group distribution below `parent`."""
    folder = parent / outcome.experiment
    summary = write_summary(store, outcome.experiment, folder / "summary.csv")
    distribution_table(outcome.splits).to_csv(folder / "distribution.csv", index=False)
    draw_group_distribution(outcome.splits, folder)
    write_figures(store, outcome.experiment, folder)
    Console().print(render_summary(summary, title=f"{outcome.experiment}, test"))
    print(f"results: {store}/trials (pandas.read_parquet)\ntable and figures: {folder}")
