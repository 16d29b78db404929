"""The commands `report`, `table` and `figures`, and what a sweep shows at its end: results without a rerun."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console

from d3m_ray.commands.terminal import EXIT_FAILED, on_standard_output, say
from d3m_ray.store.errors import StoreError
from d3m_ray.store.files import check_writable_folder, expanded
from d3m_ray.store.store import Store
from d3m_ray.wording import counted

if TYPE_CHECKING:
    import pandas as pd

    from d3m_ray.analysis.results import Results

FIGURES = "the folder of tables and figures"
TableFormat = Literal["text", "csv", "json"]
Show = Callable[["list[Results]", dict[str, None]], None]


def default_folder(store: Store) -> Path:
    """Where tables, figures and pages go: into the store where that is a local folder, else here."""
    return Path("figures") if "://" in str(store) else Path(str(store)) / "figures"


def report(store: Store, experiments: Sequence[str], out: Path | None) -> int:
    """Write tables, figures and one page of each experiment, and an index; the exit status."""
    folder = _writable(default_folder(store) if out is None else out)

    def write(found: "list[Results]", damaged: dict[str, None]) -> None:
        from d3m_ray.analysis.output import INDEX, PAGE, write_report

        written = write_report(found, folder, damaged.keys(), say, whole_store=not experiments)
        page = folder / INDEX if not experiments else folder / found[0].name / PAGE
        _print(
            f"{page}: {counted(written.num_written, 'experiment')} written, {written.num_up_to_date} up to date before"
        )

    return _with_results(store, experiments, write)


def figures(store: Store, experiments: Sequence[str], out: Path | None) -> int:
    """Write the figures of each experiment; the exit status."""
    folder = _writable(default_folder(store) if out is None else out)

    def draw(found: "list[Results]", damaged: dict[str, None]) -> None:
        from d3m_ray.analysis.output import write_figures

        for results in found:
            files, _ = write_figures(results, folder / results.name)
            _print(f"{folder / results.name}: {counted(len(files), 'file')}")

    return _with_results(store, experiments, draw)


def table(store: Store, experiments: Sequence[str], form: TableFormat) -> int:
    """Print what each experiment shows: its table, its headline and what speaks against it; the exit status."""

    def show(found: "list[Results]", damaged: dict[str, None]) -> None:
        if form == "text":
            for results in found:
                show_finding(results)
        elif form == "csv":
            _print(_summaries(found).to_csv(index=False).rstrip("\n"))
        else:
            _print(json.dumps([_document(results) for results in found], indent=1, allow_nan=False))

    return _with_results(store, experiments, show)


def show_results(store: Store, experiment: str, folder: Path) -> None:
    """Print what an experiment that has just ended shows, keep its caveats in its record, write its report.

    Raises StoreError where the folder cannot be written; what is printed is printed by then.
    """
    from d3m_ray.analysis.output import PAGE, write_report
    from d3m_ray.analysis.results import read_results

    (results,) = read_results(store, [experiment])
    store.write_caveats(experiment, show_finding(results))
    write_report([results], folder, (), say, whole_store=False)
    page = folder / experiment / PAGE
    _print(f"results: {store} (d3m_ray.read_trials)\nreport: {page}, its tables and figures beside it")


def show_finding(results: "Results") -> list[str]:
    """Print the table of an experiment, its headline and what speaks against it; returns the caveats."""
    from d3m_ray.analysis.caveats import find_caveats
    from d3m_ray.analysis.lds import lds_table
    from d3m_ray.analysis.lds_on_screen import render_lds
    from d3m_ray.analysis.leaderboard import leaderboard_markdown, leaderboard_table
    from d3m_ray.analysis.report.answer import answer_of
    from d3m_ray.analysis.summary import render_summary, summary_table

    caveats = [caveat.sentence for caveat in find_caveats(results)]
    with on_standard_output():
        if len(results.trials):
            Console().print(render_summary(summary_table(results), title=f"{results.name}, test"))
        if len(results.lds):
            Console().print(render_lds(lds_table(results), title=f"{results.name}, val"))
        if len(leaderboard_table(results)):
            _print_line(leaderboard_markdown(results), "")
        answer = answer_of(results)
        sentence = answer.sentence
        _print_line(sentence, "bold")
        for remark in answer.details if answer.kind == "lds" else ():
            _print_line(remark, "")
        for caveat in (each for each in caveats if each not in sentence):  # what it rests on, it says itself
            _print_line(f"caution: {caveat}", "yellow")
    return caveats


def _with_results(store: Store, experiments: Sequence[str], use: Show) -> int:
    """Do something with the experiments named, or with all; then say what is damaged; the exit status."""
    from d3m_ray.analysis.results import read_results

    damaged: dict[str, None] = {}  # each line once, in order
    try:
        use(read_results(store, experiments, damaged.setdefault), damaged)
    except StoreError:
        if not damaged:
            raise
    for line in damaged:
        say(f"error: {line}", "red")
    return EXIT_FAILED if damaged else 0


def _writable(folder: Path) -> Path:
    folder = expanded(folder, FIGURES)
    check_writable_folder(folder, FIGURES)
    return folder


def _summaries(found: "Sequence[Results]") -> "pd.DataFrame":
    import pandas as pd

    from d3m_ray.analysis.summary import summary_table

    frames = [summary_table(results).assign(experiment=results.name) for results in found if len(results.trials)]
    rows = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["experiment"])
    return rows[["experiment", *rows.columns.drop("experiment")]]


def _document(results: "Results") -> dict[str, Any]:
    """What an experiment shows, as JSON values: numbers that are missing are null."""
    from d3m_ray.analysis.caveats import find_caveats
    from d3m_ray.analysis.report.answer import answer_of

    finding = answer_of(results)
    return {
        "experiment": results.name,
        "headline": finding.sentence,
        "details": list(finding.details),
        "kind": finding.kind,
        "caveats": [caveat.sentence for caveat in find_caveats(results)],
        "rows": json.loads(_summaries([results]).to_json(orient="records")),
    }


def _print(text: str) -> None:
    with on_standard_output():
        print(text)


def _print_line(text: str, style: str) -> None:
    Console().print(text, style=style, highlight=False, markup=False, emoji=False, soft_wrap=True)
