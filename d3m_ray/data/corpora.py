"""The corpora by name: each with its options, how it is read, and the numbers removed that suit its size."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from d3m_ray.data.checks import DataError
from d3m_ray.data.csv_folder import is_csv_folder, load_csv_folder
from d3m_ray.data.hatexplain import Hatexplain, load_hatexplain
from d3m_ray.data.own import load_own
from d3m_ray.data.own_options import Own
from d3m_ray.data.planted import Planted, make_planted
from d3m_ray.data.toxigen import Toxigen, load_toxigen
from d3m_ray.errors import InputError
from d3m_ray.records import Splits


@dataclass(frozen=True)
class Corpus:
    """All that is to be known of a corpus: its options are flags, and one function makes its splits."""

    name: str
    summary: str
    """What it is, in a line: --help says it."""
    options: type
    """A frozen dataclass; every field is a flag."""
    load: Callable[[Any, Path | None], Splits]
    """(options, --data) to splits. Raises DataError where the source breaks a rule."""
    num_removed: tuple[int | str, ...] = (0, "5%", "10%", "20%")
    """What --num-removed is unless told otherwise."""
    reads_itself: bool = False
    """Whether it reads whatever --data names, a single file or a folder of train.csv, val.csv and test.csv too."""


def _planted(options: Planted, source: Path | None) -> Splits:
    if source is None:
        return make_planted(options)
    raise DataError(
        f"planted text is made, not read: leave out --data, or name a folder of train.csv, val.csv and test.csv; "
        f"received {str(source)!r}, which has none of the three"
    )


CORPORA: dict[str, Corpus] = {
    corpus.name: corpus
    for corpus in (
        Corpus(
            "toxigen",
            "statements about 13 identity groups, machine-generated for training, labelled by people for the test",
            Toxigen,
            load_toxigen,
            (0, 50, 100, 200, 300, 400, 500, 1000, 3000, 5000),
        ),
        Corpus(
            "hatexplain",
            "posts about four identity groups, each labelled by three annotators",
            Hatexplain,
            load_hatexplain,
            (0, 50, 100, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700),
        ),
        Corpus("planted", "made-up text with known harmful examples", Planted, _planted, (0, 30, 60, 90, 120)),
        Corpus("own", "a corpus of your own, from any folder or file of tables", Own, load_own, reads_itself=True),
    )
}
"""By name; of whatever a user adds, too."""


def corpus_of(options: Any) -> Corpus:
    """The corpus that these options belong to. Raises InputError where none is registered for them."""
    found = next((corpus for corpus in CORPORA.values() if corpus.options is type(options)), None)
    if found is None:
        raise InputError(
            f"a corpus is one of {', '.join(CORPORA)}, given by its options; received {options!r}: register it"
        )
    return found


def load_splits(options: Any, source: Path | None = None) -> Splits:
    """The splits of the corpus that the options belong to, under its name in `CORPORA`, an own one under its own.

    `source` is a folder of train.csv, val.csv and test.csv, taken as they are, or of the corpus in its original format,
    or None: ToxiGen and HateXplain then come from the hub, planted is made. An own corpus is a folder or a file. Raises
    DataError where the source breaks a rule, naming the file, the row and the fix, InputError where an option does not
    apply to it.
    """
    corpus = corpus_of(options)
    if not corpus.reads_itself:
        if source is not None and not source.is_dir():
            fix = "d3m-ray run own reads a single file" if source.exists() else "leave it out to use the hub"
            raise DataError(f"--data is a folder, received {str(source)!r}, which is none; {fix}")
        if source is not None and is_csv_folder(source):
            _refuse_options(options, source)
            return load_csv_folder(source, corpus.name)
    return corpus.load(options, source)


def _refuse_options(options: Any, source: Path) -> None:
    """Options that would be without effect on splits that are taken as they are."""
    defaults = type(options)()
    for field in fields(options):
        value = getattr(options, field.name)
        if value != getattr(defaults, field.name):
            raise InputError(
                f"{source} holds train.csv, val.csv and test.csv, which are taken as they are; "
                f"--{field.name.replace('_', '-')} does not apply, received {value}: leave it out"
            )
