"""Tables, figures and pages of a store's experiments as files, each made again only where what it shows has changed."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from d3m_ray.analysis.figures import all_figures, figure_files, svg
from d3m_ray.analysis.report import index_page, report_page
from d3m_ray.analysis.results import Results
from d3m_ray.analysis.written_tables import all_tables, column_guide
from d3m_ray.keys import content_hash
from d3m_ray.store import refused, write_file

STAMP = ".made-from.json"
"""Beside what was written of an experiment: what it was made from, and its files."""
INDEX, PAGE = "index.html", "report.html"

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
    num_written = 0
    for results in experiments:
        made_from = _made_from(results)
        if not damaged and _is_up_to_date(folder / results.name, made_from):
            continue
        tell(f"{results.name}: tables, figures and page")
        files = _write_experiment(results, folder / results.name, damaged, has_index=whole_store)
        if not damaged:
            stamp = {"made_from": made_from, "files": files}
            write_file(folder / results.name / STAMP, json.dumps(stamp).encode())
        num_written += 1
    if whole_store:
        hrefs = {results.name: f"{results.name}/{PAGE}" for results in experiments}
        write_file(folder / INDEX, index_page(experiments, hrefs, list(damaged)).encode())
    return Written(folder, num_written, len(experiments) - num_written)


def write_tables(results: Results, folder: Path) -> list[str]:
    """Write each table as CSV, and `columns.txt`, which says what their columns are; returns the files' names."""
    tables = all_tables(results)
    contents = {f"{name}.csv": table.to_csv(index=False) for name, table in tables.items()}
    contents["columns.txt"] = column_guide(tables)
    for name, text in contents.items():
        write_file(folder / name, text.encode())
    return list(contents)


def write_figures(results: Results, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Write each figure as PDF, PNG and SVG; returns the files' names, and by figure its `<svg>` element for a page."""
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
    figures, elements = write_figures(results, folder)
    by_figure = {name: [file for file in figures if Path(file).stem == name] for name in elements}
    index_href = f"../{INDEX}" if has_index else None
    page = report_page(results, elements, by_figure, index_href, damaged)
    write_file(folder / PAGE, page.encode())
    return [*tables, *figures, PAGE]


def _forget(folder: Path) -> None:
    """Remove the stamp: once one file is replaced, it no longer says what all of them were made from."""
    with refused(f"{folder / STAMP}", "written"):
        (folder / STAMP).unlink(missing_ok=True)


def _is_up_to_date(folder: Path, made_from: str) -> bool:
    """Whether an experiment's files are all there, and made from this."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        return stamp["made_from"] == made_from and all((folder / name).is_file() for name in stamp["files"])
    except (OSError, ValueError, KeyError, TypeError):  # none, or not one of ours: made again
        return False


def _made_from(results: Results) -> str:
    """Hash of all that an experiment's files show: its record, trials and failures, the state of the files that the
    other tables are read from, and the code that draws them.
    """
    record = {name: value for name, value in asdict(results.record).items() if name != "caveats"}
    frames = [results.all_trials, results.failures, results.lds]
    hashes = [pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes() for frame in frames]
    return content_hash(_code(), json.dumps(record, sort_keys=True), *hashes, results.versions())


@cache
def _code() -> str:
    """Hash of the modules and templates of `analysis`."""
    folder = Path(__file__).parent
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".j2", ".css", ".js", ".toml"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
