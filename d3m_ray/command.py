"""The command line of a sweep: flags, checks, the experiment on Ray, then its table and figures.

torch, transformers, matplotlib and Ray are imported where they are first needed: they take seconds, and what is wrong
with a flag is said without them, what is wrong with the corpus or the model without Ray.
"""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import tyro
from rich.console import Console

from d3m_ray.config import ExperimentConfig, LdsConfig
from d3m_ray.errors import InputError, RunError
from d3m_ray.flags import parsed, with_environment
from d3m_ray.protocol import WARNING, follow_thesis
from d3m_ray.store import Store, StoreError, check_writable_folder, expanded, refused
from d3m_ray.waiting import announced

if TYPE_CHECKING:
    from rich.table import Table

    from d3m_ray.analysis.results import Results
    from d3m_ray.experiment import Outcome

FIGURES = "the folder of tables and figures"
TABLE_FILES = ("summary.csv", "distribution.csv", "lds.csv", "caveats.txt")
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
    given = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        preset = with_environment(defaults)
        markers = (tyro.conf.OmitArgPrefixes, tyro.conf.AvoidSubcommands, tyro.conf.OmitSubcommandPrefixes)
        settings = tyro.conf.configure(*markers)(type(defaults))
        return run(parsed(lambda: tyro.cli(settings, description=description, default=preset, args=given), given))

    sys.exit(exit_status(work, debug="--debug" in given))


def exit_status(work: Callable[[], int], debug: bool = False) -> int:
    """What a command ends with: what `work` returns, or the status of an error, which is said in one line.

    With `debug`, its traceback stands above the line. An error of no kind that is foreseen is raised.
    """
    try:
        return work()
    except BrokenPipeError:  # whoever read the output, `head` for one, has had enough: nothing more to say to them
        _silence_standard_output()
        return EXIT_FAILED
    except (InputError, StoreError, ConnectionError, RunError) as error:
        if debug:
            traceback.print_exc()
        say(f"error: {' '.join(str(error).splitlines())}", "red")
        return EXIT_FAILED if isinstance(error, RunError) else EXIT_BAD_INPUT
    except KeyboardInterrupt:
        say("interrupted: what was done is stored, the same command goes on from there")
        return EXIT_INTERRUPTED


def say(line: str, style: str = "") -> None:
    """One line on stderr, never wrapped: what reads it may be a program."""
    Console(stderr=True).print(line, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextlib.contextmanager
def on_standard_output() -> Iterator[None]:
    """A block that prints. Raises RunError where that cannot be written, as on a full disk."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _silence_standard_output()
        reason = error.strerror or type(error).__name__
        raise RunError(f"the standard output cannot be written ({reason}): what it tells is in the store") from error


def _silence_standard_output() -> None:
    """What is left in its buffer would fail again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _sweep(config: ExperimentConfig, defaults: ExperimentConfig) -> int:
    # The thesis's protocol stands for numbers of its own, which somebody chose by naming it.
    numbers_chosen = config.num_removed != defaults.num_removed or config.protocol == "thesis"
    if config.protocol == "thesis":
        config = follow_thesis(config, defaults)
        say(WARNING, "yellow")
    store = _open(config)
    from d3m_ray.experiment import prepare, run_experiment
    from d3m_ray.progress import Progress

    with Progress() as progress:
        prepared = prepare(config, store, progress, numbers_chosen)
        _check_figures(config, store, prepared.context.experiment)
        from d3m_ray.cluster.engine import connected

        with _failing(), connected(config.execution, store, progress.stage) as engine:
            outcome = run_experiment(prepared, engine, progress)
    with _failing():
        return _finish(config, store, outcome, show_results, "test trial")


def _lds_sweep(config: LdsConfig) -> int:
    experiment = config.experiment
    store = _open(experiment)
    from d3m_ray.lds import prepare_lds, run_lds
    from d3m_ray.progress import Progress

    with Progress() as progress:
        prepared = prepare_lds(config, store, progress)
        _check_figures(experiment, store, prepared.subsets.context.experiment)
        from d3m_ray.cluster.engine import connected

        with _failing(), connected(experiment.execution, store, progress.stage) as engine:
            outcome = run_lds(prepared, engine, progress)
    with _failing():
        return _finish(experiment, store, outcome, show_lds, "LDS")


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
    return Path("figures") if "://" in str(store) else Path(str(store)) / "figures"


def _check_figures(config: ExperimentConfig, store: Store, experiment: str) -> None:
    """Raises StoreError where an experiment's tables could not be written when it is done."""
    folder = figures_folder(config, store) / experiment
    check_writable_folder(folder, FIGURES)
    in_the_way = next((folder / name for name in TABLE_FILES if (folder / name).is_dir()), None)
    if in_the_way is not None:
        raise StoreError(f"{FIGURES} holds tables; {in_the_way} is a folder: move it, or name another --figures")


@contextlib.contextmanager
def _failing() -> Iterator[None]:
    """From here on a store that cannot be used is a failure: it could be when the inputs were checked."""
    try:
        yield
    except StoreError as error:
        raise RunError(f"{error}; what was done is stored, the same command goes on from there") from error


Show = Callable[[Store, "Outcome", Path], None]


def _finish(config: ExperimentConfig, store: Store, outcome: "Outcome", show: Show, kind: str) -> int:
    """Show what there is, then what failed and why; the exit status."""
    from d3m_ray.failures import told

    table = "trials" if show is show_results else "lds"
    if store.read_all(table, columns=["experiment"], filters=[("experiment", "==", outcome.experiment)]).empty:
        say(f"no {kind} of {outcome.experiment} could be made: there is no table to show")
    else:
        folder = figures_folder(config, store)
        try:
            show(store, outcome, folder)
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


def show_results(store: Store, outcome: "Outcome", parent: Path) -> None:
    """Print the summary table and what speaks against it; write both, figures and group distribution below `parent`."""
    from d3m_ray.analysis.caveats import write_caveats
    from d3m_ray.analysis.corpus import distribution_table
    from d3m_ray.analysis.distributions import draw_group_distribution
    from d3m_ray.analysis.figures import write_figures
    from d3m_ray.analysis.headline import headline
    from d3m_ray.analysis.results import read_results
    from d3m_ray.analysis.summary import render_summary, summary_table
    from d3m_ray.analysis.tables import write_table

    folder = parent / outcome.experiment
    (results,) = read_results(store, [outcome.experiment])
    summary = summary_table(results)
    table = render_summary(summary, title=f"{outcome.experiment}, test")
    caveats = _show(table, store, results, headline(results).sentence)
    with refused(FIGURES, "written"):
        write_table(summary, folder / "summary.csv")
        write_table(distribution_table(results), folder / "distribution.csv")
        draw_group_distribution(outcome.splits, folder)
        write_figures(store, outcome.experiment, folder)
        write_caveats(caveats, folder / "caveats.txt")
    with on_standard_output():
        print(f"results: {store}/trials (pandas.read_parquet)\ntable and figures: {folder}")


def show_lds(store: Store, outcome: "Outcome", parent: Path) -> None:
    """Print the table of linear datamodeling scores and what speaks against it, and write both below `parent`."""
    from d3m_ray.analysis.caveats import write_caveats
    from d3m_ray.analysis.datamodeling import lds_table, render_lds
    from d3m_ray.analysis.results import read_results
    from d3m_ray.analysis.tables import write_table

    folder = parent / outcome.experiment
    (results,) = read_results(store, [outcome.experiment])
    table = lds_table(results)
    caveats = _show(render_lds(table, title=f"{outcome.experiment}, val"), store, results)
    with refused(FIGURES, "written"):
        write_table(table, folder / "lds.csv")
        write_caveats(caveats, folder / "caveats.txt")
    with on_standard_output():
        print(f"results: {store}/lds (pandas.read_parquet)\ntable: {folder}")


def _show(table: "Table", store: Store, results: "Results", finding: str = "") -> list[str]:
    """Print a table, a finding, and what speaks against it, which goes into the experiment's record too, and back."""
    from d3m_ray.analysis.caveats import find_caveats

    sentences = [caveat.sentence for caveat in find_caveats(results)]
    store.write_caveats(results.name, sentences)
    with on_standard_output():
        Console().print(table)
        if finding:
            Console().print(finding, style="bold", highlight=False, markup=False, emoji=False, soft_wrap=True)
        for sentence in sentences:
            line = f"caution: {sentence}"
            Console().print(line, style="yellow", highlight=False, markup=False, emoji=False, soft_wrap=True)
    return sentences
