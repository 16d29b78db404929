"""Raw corpora to Splits: the options of each corpus, and one way to load any of them."""

from dataclasses import fields
from pathlib import Path

from d3m_ray.data.checks import DataError
from d3m_ray.data.csv_folder import is_csv_folder, load_csv_folder
from d3m_ray.data.hatexplain import Hatexplain, load_hatexplain
from d3m_ray.data.own import load_own
from d3m_ray.data.own_options import Own
from d3m_ray.data.planted import Planted, make_planted
from d3m_ray.data.toxigen import Toxigen, load_toxigen
from d3m_ray.errors import InputError
from d3m_ray.records import Splits

CorpusOptions = Toxigen | Hatexplain | Planted | Own
CORPORA: dict[type[CorpusOptions], str] = {
    Toxigen: "toxigen",
    Hatexplain: "hatexplain",
    Planted: "planted",
    Own: "own",
}

__all__ = [
    "CORPORA",
    "CorpusOptions",
    "DataError",
    "Hatexplain",
    "Own",
    "Planted",
    "Toxigen",
    "load_splits",
]


def load_splits(options: CorpusOptions, source: Path | None = None) -> Splits:
    """The splits of the corpus that the options belong to, under its name in `CORPORA`, an own one under its own.

    `source` is a folder of train.csv, val.csv and test.csv, taken as they are, or of the corpus in its original format,
    or None: ToxiGen and HateXplain then come from the hub, planted is made. An own corpus is a folder or a file. Raises
    DataError where the source breaks a rule, naming the file, the row and the mend, InputError where an option does not
    apply to it.
    """
    if isinstance(options, Own):
        return load_own(options, source)
    if source is not None and not source.is_dir():
        mend = "sweeps/own.py reads a single file" if source.exists() else "leave it out to use the hub"
        raise DataError(f"--data is a folder, received {str(source)!r}, which is none; {mend}")
    if source is not None and is_csv_folder(source):
        _refuse_options(options, source)
        return load_csv_folder(source, CORPORA[type(options)])
    match options:
        case Toxigen():
            return load_toxigen(options, source)
        case Hatexplain():
            return load_hatexplain(options, source)
        case Planted() if source is None:
            return make_planted(options)
    raise DataError(
        f"planted text is made, not read: leave out --data, or name a folder of train.csv, val.csv and test.csv; "
        f"received {str(source)!r}, which has none of the three"
    )


def _refuse_options(options: CorpusOptions, source: Path) -> None:
    """Options that would be without effect on splits that are taken as they are."""
    defaults = type(options)()
    for field in fields(options):
        value = getattr(options, field.name)
        if value != getattr(defaults, field.name):
            raise InputError(
                f"{source} holds train.csv, val.csv and test.csv, which are taken as they are; "
                f"--{field.name.replace('_', '-')} does not apply, received {value}: leave it out"
            )
