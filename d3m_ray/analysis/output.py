"""Tables, figures and pages of a store's experiments as files, each made again only where what it shows has changed."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from d3m_ray.analysis.caveats import find_caveats
from d3m_ray.analysis.leaderboard import leaderboard_markdown
from d3m_ray.analysis.report.answer import answer_of
from d3m_ray.analysis.report.index import index_page
from d3m_ray.analysis.report.page import report_page
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.written_tables import all_tables, column_guide
from d3m_ray.keys import content_hash
from d3m_ray.store.errors import refused
from d3m_ray.store.files import write_file
from d3m_ray.store.provenance import PACKAGE

STAMP = ".made-from.json"
"""Beside what was written of an experiment: what it was made from, and its files."""
INDEX, PAGE, FINDING, LEADERBOARD = "index.html", "report.html", "finding.txt", "leaderboard.md"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Written:
    """What a command wrote of the experiments that it was asked for, and of how many all was up to date."""

    folder: Path
    num_written: int
    num_up_to_date: int


def write_report(
    experiments: Sequence[Results], folder: Path, damaged: Collection[str], tell: Tell, whole_store: bool = True
) -> Written:
    """Write tables, figures and a page of each experiment below the folder, and an index where they are all of a store.

    An experiment of which all was written before, from the same results by the same version, is left as it is.
    `damaged` are the sentences about damaged files, which reading may add to. Raises StoreError where the folder cannot
    be written; each file is whole or as it was.
    """
    headlines, num_written = {}, 0
    has_index = whole_store or (folder / INDEX).is_file()
    for results in experiments:
        made_from = _made_from(results)
        stamp = None if damaged else _valid_stamp(folder / results.name, made_from, has_index)
        if stamp is None:
            tell(f"{results.name}: tables, figures and page")
            files = _write_experiment(results, folder / results.name, damaged, has_index)
            sentence = answer_of(results).sentence
            stamp = {"made_from": made_from, "has_index": has_index, "headline": sentence, "files": files}
            if not damaged:
                write_file(folder / results.name / STAMP, json.dumps(stamp).encode())
            num_written += 1
        headlines[results.name] = stamp["headline"]
    if whole_store:
        hrefs = {results.name: f"{results.name}/{PAGE}" for results in experiments}
        write_file(folder / INDEX, index_page(experiments, hrefs, list(damaged), headlines).encode())
    return Written(folder, num_written, len(experiments) - num_written)


def write_tables(results: Results, folder: Path) -> list[str]:
    """Write each table as CSV, and `columns.txt`, which says what their columns are; returns the files' names."""
    tables = all_tables(results)
    contents = {f"{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    contents["columns.txt"] = column_guide(tables)
    if "leaderboard" in tables:
        contents[LEADERBOARD] = leaderboard_markdown(results)
    for name, text in contents.items():
        write_file(folder / name, text.encode())
    return list(contents)


def write_figures(results: Results, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Write each figure as PDF, PNG and SVG; returns the files' names, and by figure its `<svg>` element for a page."""
    from d3m_ray.analysis.figures.catalogue import all_figures  # loads matplotlib
    from d3m_ray.analysis.figures.files import figure_files, svg

    _forget(folder)
    names: list[str] = []
    elements: dict[str, str] = {}
    for name, draw in all_figures(results).items():
        figure = draw()
        files = figure_files(figure, name)
        for file, data in files.items():
            write_file(folder / file, data)
        names += files
        elements[name] = svg(figure, name, files[f"{name}.svg"])
    return names, elements


def _write_experiment(results: Results, folder: Path, damaged: Collection[str], has_index: bool) -> list[str]:
    """Everything of one experiment; the page last, since it says which files were found damaged on the way."""
    _forget(folder)
    tables = write_tables(results, folder)
    write_file(folder / FINDING, _finding(results).encode())
    figures, elements = write_figures(results, folder)
    by_figure = {name: [file for file in figures if Path(file).stem == name] for name in elements}
    index_href = f"../{INDEX}" if has_index else None
    page = report_page(results, elements, by_figure, index_href, damaged)
    write_file(folder / PAGE, page.encode())
    return [*tables, FINDING, *figures, PAGE]


def _finding(results: Results) -> str:
    """The headline, what it rests on, and what speaks against reading more into it, a line each."""
    answer = answer_of(results)
    cautions = [f"caution: {caveat.sentence}" for caveat in find_caveats(results)]
    return "".join(f"{line}\n" for line in (answer.sentence, *answer.details, *cautions))


def _forget(folder: Path) -> None:
    """Remove the stamp: once one file is replaced, it no longer says what all of them were made from."""
    with refused(f"{folder / STAMP}", "written"):
        (folder / STAMP).unlink(missing_ok=True)


def _valid_stamp(folder: Path, made_from: str, has_index: bool) -> dict[str, Any] | None:
    """What was kept of an experiment's last report, where its files are all there and made from this.

    A page that has a link to the index, or has none because there is none.
    """
    try:
        stamp: dict[str, Any] = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        is_valid = (stamp["made_from"], stamp["has_index"]) == (made_from, has_index) and isinstance(
            stamp["headline"], str
        )
        return stamp if is_valid and all((folder / name).is_file() for name in stamp["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or not one of ours: all is made again
        return None


def _made_from(results: Results) -> str:
    """Hash of all that an experiment's files show: its record, trials and failures, the state of the files that the
    other tables are read from, and the code that draws them.
    """
    record = {name: value for name, value in asdict(results.record).items() if name != "caveats"}
    record["provenance"] = {n: v for n, v in (record["provenance"] or {}).items() if n != "recorded_at"}
    frames = [results.all_trials, results.failures, results.lds]
    hashes = [pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes() for frame in frames]
    return content_hash(_code(), str(results.store), json.dumps(record, sort_keys=True), *hashes, results.versions())


@cache
def _code() -> str:
    """Hash of the modules and templates of the package: tables take metrics and words from outside `analysis`."""
    files = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js", ".toml"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
