"""Debias a text corpus by training-data attribution: run an experiment, then read what its store holds.

To run: d3m-ray run CORPUS, plan CORPUS, lds CORPUS or leaderboard CORPUS, each with a --help of its own. CORPUS is
planted, toxigen, hatexplain, own, one that a plug-in brings, or an experiment's record, STORE/experiments/NAME.json.

For example: "d3m-ray run planted" is a demonstration of some minutes; "d3m-ray plan own --data reviews/" says what
would be trained; "d3m-ray report results/demo" writes tables, figures and a page.

The exit status is 0 where all is done, 1 where something failed, 2 where an input breaks a rule, 130 after Ctrl-C,
143 after SIGTERM, 129 after SIGHUP.
"""

import sys
from collections.abc import Callable, Collection
from json import dumps
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from d3m_ray.analysis.status import render_status, status_document
from d3m_ray.commands import check as check_command
from d3m_ray.commands import compact as compact_command
from d3m_ray.commands import results as results_command
from d3m_ray.commands import runs
from d3m_ray.commands.examples import ExamplesRequest, Format, show_examples
from d3m_ray.commands.export import ExportRequest, export_train
from d3m_ray.commands.flags import parsed
from d3m_ray.commands.results import TableFormat
from d3m_ray.commands.terminal import EXIT_FAILED, exit_status, on_standard_output, say
from d3m_ray.errors import InputError
from d3m_ray.rules import check_known
from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store
from d3m_ray.version import __version__

COMMANDS = tyro.extras.SubcommandApp()
READERS = ("status", "report", "table", "figures", "examples", "export", "check", "compact")

StoreArgument = Annotated[
    str,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="STORE", help="folder or URI that a sweep was given as --store, such as results/demo"),
]


# Each with its constructor: for `str | None` alone the parser would take a group called None for no group.
Name = Annotated[str | None, tyro.conf.arg(constructor=str, metavar="NAME", help_behavior_hint="(optional)")]
File = Annotated[str | None, tyro.conf.arg(constructor=str, metavar="FILE", help_behavior_hint="(optional)")]
Number = Annotated[int | None, tyro.conf.arg(constructor=int, metavar="NUMBER", help_behavior_hint="(optional)")]

Folder = Annotated[str | None, tyro.conf.arg(constructor=str, metavar="FOLDER", help_behavior_hint="(optional)")]
Experiments = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")]

Command = Callable[[], int]


@COMMANDS.command
def status(store: StoreArgument, json: bool = False, debug: bool = False) -> Command:
    """Say what of each experiment is done, failed and missing.

    Args:
        store: Where the results are.
        json: Print one JSON document, for programs: each experiment with its trials and their states, its settings that
            differ from the others', its caveats; and what is damaged.
        debug: Show the traceback of an error, not only what is wrong.
    """
    return lambda: (_print_status if json else _show_status)(_reader(store))


@COMMANDS.command
def report(store: StoreArgument, experiment: Experiments = (), out: Folder = None, debug: bool = False) -> Command:
    """Write tables, figures and one self-contained HTML page of each experiment, and an index; nothing is retrained.

    Args:
        store: Where the results are.
        experiment: Experiments to report; left out, all of the store, with an index that compares them.
        out: Folder to write into; left out, `figures` in a local store, else in this folder.
        debug: Show the traceback of an error, not only what is wrong.
    """
    return lambda: results_command.report(_reader(store), experiment, _path(out))


@COMMANDS.command
def table(
    store: StoreArgument,
    experiment: Experiments = (),
    format: TableFormat = "text",  # noqa: A002 - the flag's name
    debug: bool = False,
) -> Command:
    """Print each experiment's table, what it shows, and what speaks against it, as at the end of its sweep.

    Args:
        store: Where the results are.
        experiment: Experiments to show; left out, all of the store.
        format: text for the terminal; csv (the tables in one) or json (headline and caveats too) for programs.
        debug: Show the traceback of an error, not only what is wrong.
    """
    return lambda: results_command.table(_reader(store), experiment, format)


@COMMANDS.command
def figures(store: StoreArgument, experiment: Experiments = (), out: Folder = None, debug: bool = False) -> Command:
    """Write the figures of each experiment as PDF, PNG and SVG.

    Args:
        store: Where the results are.
        experiment: Experiments to draw; left out, all of the store.
        out: Folder to write into; left out, `figures` in a local store, else in this folder.
        debug: Show the traceback of an error, not only what is wrong.
    """
    return lambda: results_command.figures(_reader(store), experiment, _path(out))


@COMMANDS.command
def examples(
    store: StoreArgument,
    method: Annotated[str, tyro.conf.arg(metavar="NAME")],
    worst: Number = None,
    best: Number = None,
    group: Name = None,
    label: Name = None,
    experiment: Name = None,
    format: Format = "table",  # noqa: A002 - the flag's name
    out: File = None,
    debug: bool = False,
) -> Command:
    """Show the train examples that hurt or help most by a method's alignment, with their texts.

    Args:
        store: Where the results are.
        method: Attribution method whose alignment ranks them: trak, ekfac, trak_auto and so on.
        worst: How many of lowest alignment, the most harmful first; 20 where neither this nor --best is given.
        best: How many of highest alignment instead, the most helpful first.
        group: Only examples of this group.
        label: Only examples of the label of this name.
        experiment: Experiment to read; needed where several of the store have the method.
        format: table to read on the terminal; csv, json (a list of records, UTF-8) or parquet for other programs, the
            last into a file or a pipe alone. Only a table cuts long texts.
        out: File to write to instead of the standard output; one that is there is replaced.
        debug: Show the traceback of an error, not only what is wrong.
    """
    request = ExamplesRequest(method, worst, best, group, label, experiment, format, out)
    return lambda: show_examples(_reader(store), request)


@COMMANDS.command
def export(
    store: StoreArgument,
    method: Annotated[str, tyro.conf.arg(metavar="NAME")],
    out: Annotated[str, tyro.conf.arg(metavar="FILE")],
    num_removed: Number = None,
    seed: Number = None,
    experiment: Name = None,
    overwrite: bool = False,
    debug: bool = False,
) -> Command:
    """Write the train split without what an arm removed, as a corpus, and beside it the removed rows with the reason.

    Args:
        store: Where the results are.
        method: Arm that removes examples: trak, trak_heuristic, random and so on.
        out: File of the kept rows, FILE.csv or FILE.jsonl (JSON lines), with the columns example_id, text, label and
            group, which d3m-ray run own reads. The removed rows go to FILE.removed.csv or FILE.removed.jsonl beside it.
        num_removed: How many train examples the arm removed, one of those of its trials; left out, the number of
            highest mean val worst-group accuracy.
        seed: Seed of the removal; needed where the arm removes other examples under each seed.
        experiment: Experiment to read; needed where several of the store have the arm.
        overwrite: Replace the files where they exist.
        debug: Show the traceback of an error, not only what is wrong.
    """
    request = ExportRequest(method, out, num_removed, seed, experiment, overwrite)
    return lambda: export_train(_reader(store), request)


@COMMANDS.command
def check(store: StoreArgument, repair: bool = False, debug: bool = False) -> Command:
    """Read every file of a store; name what is damaged or missing, and what recomputes it.

    The exit status is 0 where all is whole, or --repair has deleted all that was damaged, and 1 where something is
    damaged or missing. For example: "d3m-ray check results/demo" changes nothing; "d3m-ray check results/demo --repair"
    deletes what is damaged, and the same sweep, run again, recomputes it.

    Args:
        store: Where the results are.
        repair: Delete the damaged files, and nothing else; those that a sweep has written again meanwhile stay.
        debug: Show the traceback of an error, not only what is wrong.
    """
    return lambda: check_command.check(Store(store), repair)


@COMMANDS.command
def compact(store: StoreArgument, debug: bool = False) -> Command:
    """Copy each table of many small files into one file, so that it is read faster, most of all from a bucket.

    Results stay where they are. Every command reads the copy for those that did not change since, and the others one by
    one: compact again when many have come. For example: "d3m-ray compact results/demo". A sweep may run beside.

    Args:
        store: Where the results are.
        debug: Show the traceback of an error, not only what is wrong.
    """
    return lambda: compact_command.compact(Store(store))


def _reader(store: str) -> Store:
    """The store, for a command that only reads it: nothing of it is written or deleted."""
    return Store(store).reader()


def _path(out: str | None) -> Path | None:
    if out is not None and not out.strip():
        raise InputError(f"--out is a folder, received {out!r}")
    return None if out is None else Path(out)


def _print_status(store: Store) -> int:
    """Print the status as JSON, and say what is damaged; the exit status."""
    document = status_document(store)
    with on_standard_output():
        print(dumps(document, indent=1, allow_nan=False))
    return _tell(document["damaged"])


def _show_status(store: Store) -> int:
    """Print what can be read, then what cannot; the exit status."""
    damaged: dict[str, None] = {}  # each line once, in order
    try:
        rendered = render_status(store, damaged.setdefault)
    except StoreError:
        if not damaged:
            raise
    else:
        with on_standard_output():
            Console().print(rendered, soft_wrap=True)
    return _tell(damaged)


def _tell(damaged: Collection[str]) -> int:
    for line in damaged:
        say(f"error: {line}", "red")
    return EXIT_FAILED if damaged else 0


def main(arguments: list[str] | None = None) -> None:
    """Run one command; ends the process with 2 where the arguments or the store break a rule, said in one line."""
    given = sys.argv[1:] if arguments is None else arguments

    def work() -> int:
        if given[:1] == ["--version"]:
            with on_standard_output():
                print(f"d3m-ray {__version__}")
            return 0
        if given and given[0] in runs.COMMANDS:
            runs.start(given[0], given[1:])
            return 0
        if given and not given[0].startswith("-"):
            check_known("the command", given[0], [*runs.COMMANDS, *READERS])
        command: Command = parsed(lambda: COMMANDS.cli(prog="d3m-ray", description=__doc__, args=given), given)
        return command()

    if status := exit_status(work, debug="--debug" in given):
        sys.exit(status)


if __name__ == "__main__":
    main()
