"""The command `examples`: which train examples hurt or help, with their texts, for a reader or another program."""

import io
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pandas as pd
from rich.console import Console

from d3m_ray.analysis.corpus import named
from d3m_ray.analysis.examples import NUM_EXAMPLES, examples_table, render_examples, scores_of
from d3m_ray.analysis.results import Results, newest_trials
from d3m_ray.commands.arguments import checked_file
from d3m_ray.commands.terminal import EXIT_FAILED, on_standard_output, say
from d3m_ray.errors import InputError
from d3m_ray.rules import check_known
from d3m_ray.store.errors import StoreError
from d3m_ray.store.experiments import Experiment
from d3m_ray.store.files import write_file
from d3m_ray.store.store import Store
from d3m_ray.wording import counted

Format = Literal["table", "csv", "parquet", "json"]
WIDTH_IN_A_FILE = 160  # columns of a table that is not shown on a terminal


@dataclass(frozen=True)
class ExamplesRequest:
    """Which examples are asked for, and how. Raises InputError where the two do not go together."""

    method: str
    """An attribution method, or its `_auto`: what has an alignment."""
    worst: int | None = None
    """How many of lowest alignment; the default where neither is given."""
    best: int | None = None
    """How many of highest alignment."""
    group: str | None = None
    label: str | None = None
    """A label's name."""
    experiment: str | None = None
    format: Format = "table"
    out: str | None = None
    """A file; None is the standard output."""

    def __post_init__(self) -> None:
        if self.worst is not None and self.best is not None:
            raise InputError(
                f"--worst and --best exclude each other; received {self.worst} and {self.best}: leave one out"
            )
        for flag in ("worst", "best"):
            number = getattr(self, flag)
            if number is not None and number < 1:
                raise InputError(f"--{flag} is a whole number from 1; received {number}")
        if self.format == "parquet" and self.out is None and sys.stdout.isatty():
            raise InputError(
                "parquet is no text and the standard output is a terminal: name a file by --out, or pipe it"
            )

    @property
    def num_examples(self) -> int:
        return self.best or self.worst or NUM_EXAMPLES


def show_examples(store: Store, request: ExamplesRequest) -> int:
    """Print or write the examples, then say what is missing and what cannot be read; the exit status.

    Raises InputError where the store knows no such method, group or label, or knows the method of several experiments
    and none is named; StoreError where it has no such experiment, or the alignment is not made yet.
    """
    out = None if request.out is None else checked_file(request.out)
    damaged: dict[str, None] = {}  # each line once, in order
    try:
        table, title = _find(store, request, damaged.setdefault)
    except StoreError:
        if not damaged:  # else that is why
            raise
    else:
        _deliver(table, title, request.format, out)
    finally:
        for line in damaged:
            say(f"error: {line}", "red")
    return EXIT_FAILED if damaged else 0


def _find(store: Store, request: ExamplesRequest, tell: Callable[[str], None]) -> tuple[pd.DataFrame, str]:
    """The table and its title. What the store lacks for it is said."""
    results = _results_of(store, request, tell)
    method, name = request.method, results.name
    if method not in results.alignments:
        raise StoreError(f"{store} holds no alignment of {method} of {name}; run the sweep, which goes on from there")
    aligned = results.alignments[method]
    for flag, known in (("group", aligned["group"]), ("label", named(results, aligned["label"]))):
        wanted = getattr(request, flag)
        if wanted is not None:
            check_known(f"--{flag}", wanted, dict.fromkeys(sorted(known)))
    table = examples_table(
        results, method, request.num_examples, request.best is not None, request.group, request.label
    )
    for caution in _cautions(results, method, table):
        say(f"caution: {caution}", "yellow")
    parts = (f"{what} {value}" for what, value in (("group", request.group), ("label", request.label)) if value)
    part = " and ".join(parts)
    which = "highest" if request.best else "lowest"
    return table, f"{name}, {method}: train examples of {which} alignment{f', {part}' if part else ''}"


def _results_of(store: Store, request: ExamplesRequest, tell: Callable[[str], None]) -> Results:
    """What the store holds of the method in the one experiment that is meant; nothing else is read."""
    record = _experiment_of(store.read_experiments(tell), store, request)
    keys = {table: {n: k for n, k in of.items() if n == request.method} for table, of in record.keys.items()}
    ours = [("experiment", "==", record.name), ("method", "==", request.method)]
    trials = store.read_all("trials", filters=ours, say=tell)
    return Results(store, replace(record, keys=keys), newest_trials(trials), tell)


def _experiment_of(records: Mapping[str, Experiment], store: Store, request: ExamplesRequest) -> Experiment:
    if not records:
        raise store.without_experiment()
    if request.experiment is not None:
        check_known("--experiment", request.experiment, records)
        records = {request.experiment: records[request.experiment]}
    aligned = {name: record.keys.get("alignments", {}) for name, record in records.items()}
    known = sorted({method for methods in aligned.values() for method in methods})
    if not known:
        raise StoreError(f"{store} holds no alignment of {', '.join(records)}: no attribution method was asked for")
    check_known("--method", request.method, known)
    having = [name for name, methods in aligned.items() if request.method in methods]
    if len(having) > 1:
        raise InputError(
            f"{len(having)} experiments of {store} have {request.method}: {', '.join(having)}; name one by --experiment"
        )
    return records[having[0]]


def _cautions(results: Results, method: str, table: pd.DataFrame) -> list[str]:
    """A sentence for each thing that the store lacks, so that a gap in the table is not taken for a finding."""
    cautions = []
    if table.empty:
        cautions.append("no train example is of that group and label")
    elif table["text"].isna().all():
        cautions.append(
            "the store holds no texts of this corpus, as with --no-store-texts or of an earlier version: "
            "the column text is empty"
        )
    if not scores_of(table):
        cautions.append(f"the store holds no scores of {method}: there are no columns of them")
    removing = results.fits[results.fits["num_removed"] > 0]
    num_unknown = len(removing) - len(results.removals_of(method).drop_duplicates(["num_removed", "seed"]))
    if num_unknown:
        cautions.append(
            f"what {num_unknown} of {counted(len(removing), 'trial')} of {method} removed is not stored: "
            "smallest_num_removed knows nothing of them"
        )
    return cautions


def _deliver(table: pd.DataFrame, title: str, form: Format, out: Path | None) -> None:
    if out is not None:
        write_file(out, _as_text_table(table, title) if form == "table" else _ENCODERS[form](table))
        say(f"{counted(len(table), 'example')}: {out}")
        return
    with on_standard_output():
        if form == "table":
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="backslashreplace")  # of letters that the terminal's encoding lacks
            Console().print(render_examples(table, title))
        else:
            sys.stdout.flush()
            sys.stdout.buffer.write(_ENCODERS[form](table))


def _as_text_table(table: pd.DataFrame, title: str) -> bytes:
    drawn = io.StringIO()
    Console(file=drawn, width=WIDTH_IN_A_FILE, no_color=True).print(render_examples(table, title))
    return drawn.getvalue().encode()


def _as_csv(table: pd.DataFrame) -> bytes:
    """As RFC 4180 says, lines ending in CR LF: only so does every reader keep a lone CR in a text."""
    return table.to_csv(index=False, lineterminator="\r\n").encode()


def _as_json(table: pd.DataFrame) -> bytes:
    columns = {name: [None if pd.isna(v) else v for v in table[name].tolist()] for name in table}
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return f"{json.dumps(records, ensure_ascii=False, indent=1, allow_nan=False)}\n".encode()


def _as_parquet(table: pd.DataFrame) -> bytes:
    written = io.BytesIO()
    table.to_parquet(written, index=False)
    return written.getvalue()


_ENCODERS: Mapping[Format, Callable[[pd.DataFrame], bytes]] = {
    "csv": _as_csv,
    "json": _as_json,
    "parquet": _as_parquet,
}
