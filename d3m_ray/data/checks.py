"""The checks at the edge: rows, groups and labels; each error names the place and the fix."""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from d3m_ray.errors import InputError
from d3m_ray.metrics.groups import CELL_SEPARATOR, SUMMARY_GROUPS
from d3m_ray.records import BINARY_LABELS, SPLIT_NAMES, Examples, Splits

MAX_NAMES = 10  # that an error lists; a column of ids would otherwise fill the screen
MAX_SHOWN_CHARACTERS = 80  # of a received value
TRUTHS_AND_NUMBERS = (("true", "false"), ("1", "0"))  # two ways to write one thing, by the file's format
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")  # of a corpus: part of an experiment's name, and so of files'
UNSTORABLE = re.compile("[\0\ud800-\udfff]")
NOT_SEEN = re.compile(  # zero-width and format characters, variation selectors, tags: nothing is drawn for them
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


class DataError(InputError):
    """A corpus breaks a rule; the message names the file, the row where there is one, and the fix."""


@dataclass(frozen=True, eq=False)
class Table:
    """Raw rows and where they stand. Row i of the source keeps the index i in every frame cut from this one."""

    source: str
    """The file, or the hub's name, that errors point to."""
    frame: pd.DataFrame
    """One row per row of the source, indexed from 0."""
    lines: Sequence[int] | np.ndarray = field(default=())
    """1-based line at which each row begins; empty where the source is no text file."""
    parts: Sequence["Table"] = field(default=())
    """The tables that this one was joined from, in order; empty where it is one file."""

    def place(self, row: int) -> str:
        """Where a person finds the row: its line in a text file (the header is line 1), else its number from 0."""
        for part in self.parts:
            if row < len(part.frame):
                return part.place(row)
            row -= len(part.frame)
        return f"{self.source}, line {self.lines[row]}" if len(self.lines) else f"{self.source}, row {row}"

    def refuse(self, wrong: pd.Series, rule: str, fix: str, values: pd.Series | None = None) -> None:
        """Raise DataError at the first row marked wrong, with its value where given; nothing where none is."""
        rows = wrong.index[wrong.to_numpy(dtype=bool)]
        if not len(rows):
            return
        received = "" if values is None else f", received {shown(values.loc[rows[0]])}"
        more = f" ({len(rows) - 1:,} more rows like it)" if len(rows) > 1 else ""
        raise DataError(f"{self.place(int(rows[0]))}: {rule}{received}{more}; {fix}")


def join_tables(tables: Sequence[Table]) -> Table:
    """One table of the rows of all, in order, which still points to the file of each; rows count through."""
    if len(tables) == 1:
        return tables[0]
    frame = pd.concat([table.frame for table in tables], ignore_index=True)
    return Table(" and ".join(table.source for table in tables), frame, parts=tuple(tables))


def shown(value: object) -> str:
    """A received value as an error shows it: in one line, cut where it is long."""
    line = repr(value) if isinstance(value, str | bytes) else " ".join(str(value).split())
    return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}..."


def listed(names: Iterable[str]) -> str:
    """The first of the sorted names, and how many more there are."""
    every = sorted(names)
    more = len(every) - MAX_NAMES
    return f"{every[:MAX_NAMES]}" + (f" and {more:,} more" if more > 0 else "")


def text_keys(texts: pd.Series) -> pd.Series:
    """What two texts have in common where a reader would call them one, by `reading_key`."""
    return pd.Series([reading_key(text) for text in texts], index=texts.index, dtype=object)


def reading_key(text: str) -> str:
    """The text without what a reader does not tell apart: case, white space, Unicode form, characters not seen.

    Unicode's NFKC_Casefold (The Unicode Standard, section 3.13, D147), words joined by one blank.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", NOT_SEEN.sub("", text))
        text = unicodedata.normalize("NFKC", text.casefold())
    return " ".join(text.casefold().split())


def check_spelling(name: str, kind: str, names: Sequence[str]) -> None:
    """Raises DataError where two names read alike, or some are true and false and others 0 and 1."""
    first: dict[str, str] = {}
    for spelled in names:
        other = first.setdefault(reading_key(spelled), spelled)
        if other != spelled:
            raise DataError(
                f"two {kind}s of corpus {name!r} differ by more than case, white space, Unicode form and characters "
                f"that are not seen, received {other!a} and {spelled!a}: spell one like the other, or rename it"
            )
    truths, numbers = ([first[word] for word in words if word in first] for words in TRUTHS_AND_NUMBERS)
    if truths and numbers:
        raise DataError(
            f"the {kind}s of corpus {name!r} are true and false or 0 and 1, received {listed([*numbers, *truths])}, "
            "which may mean the same: write all in one way"
        )


def make_splits(
    name: str,
    frames: Mapping[str, pd.DataFrame],
    num_dropped: Mapping[str, int] | None = None,
    harmful_ids: frozenset[str] = frozenset(),
    label_names: Sequence[str] = BINARY_LABELS,
    notes: Sequence[str] = (),
) -> Splits:
    """Splits from one frame per split, with columns `example_id`, `text`, `label` and `group`.

    `label` is an index into `label_names`. The vocabulary of groups is that of train. Raises DataError where a split
    has no rows, a text is no Unicode or holds a NUL, train lacks a label, val or test has a group that train lacks or
    lacks one that train has, or a name is one that results use for something else, or looks like another.
    """
    vocabulary = _checked_vocabulary(name, frames, label_names)
    indices = {group: index for index, group in enumerate(vocabulary)}
    examples = {
        split: Examples(
            split=split,
            example_ids=frame["example_id"].to_numpy(dtype=np.str_),
            texts=tuple(frame["text"]),
            labels=frame["label"].to_numpy(dtype=np.int64),
            groups=frame["group"].map(indices).to_numpy(dtype=np.int64),
        )
        for split, frame in frames.items()
    }
    dropped = {reason: count for reason, count in (num_dropped or {}).items() if count}
    return Splits(
        name,
        tuple(vocabulary),
        **examples,
        num_dropped=dropped,
        harmful_ids=harmful_ids,
        label_names=tuple(label_names),
        notes=(*notes, *_on_repeated_texts(frames["train"])),
    )


def check_splits(splits: Splits) -> Splits:
    """The splits, where they keep the rules of `make_splits`, whoever made them. Raises DataError as it does.

    Also where a name cannot be a file's, or a text of one split reads like one of another.
    """
    name, names = splits.name, np.array(splits.group_names)
    if NAME.fullmatch(name) is None:
        raise DataError(
            f"the name of a corpus is of letters, digits, dots, dashes and underscores, at most 60, received {name!r}"
        )
    frames = {
        split: pd.DataFrame(
            {
                "example_id": examples.example_ids.tolist(),
                "text": examples.texts,
                "label": examples.labels,
                "group": names[examples.groups].tolist(),
            },
            dtype=object,  # what is no text is told, not refused by pandas
        )
        for split, examples in splits.by_name().items()
    }
    vocabulary = _checked_vocabulary(name, frames, splits.label_names)
    if list(splits.group_names) != vocabulary:
        raise DataError(
            f"the groups of {name} are those of its train, sorted: {listed(vocabulary)}, received "
            f"{list(splits.group_names)}; name them so"
        )
    keys = {split: set(text_keys(frame["text"])) for split, frame in frames.items()}
    for left, right in itertools.combinations(SPLIT_NAMES, 2):
        if shared := keys[left] & keys[right]:
            raise DataError(
                f"a text of {name} stands in one split, as it reads; {shown(min(shared))} stands in {left} and in "
                f"{right}; leave it out of one"
            )
    return splits


def _checked_vocabulary(name: str, frames: Mapping[str, pd.DataFrame], label_names: Sequence[str]) -> list[str]:
    """The groups of train, sorted, where the rows keep the rules of every corpus; raises DataError where not."""
    for split, frame in frames.items():
        if frame.empty:
            raise DataError(f"every split has examples, {split} of {name} has none; give it some")
        _check_characters(name, split, frame)
    vocabulary = sorted(set(frames["train"]["group"]))
    _check_group_names(vocabulary)
    check_spelling(name, "group", sorted(set().union(*(frame["group"] for frame in frames.values()))))
    check_spelling(name, "label", label_names)
    for split in SPLIT_NAMES[1:]:
        _check_same_groups(name, split, set(frames[split]["group"]), set(vocabulary))
    _check_train_labels(name, frames["train"]["label"], label_names)
    return vocabulary


def _on_repeated_texts(train: pd.DataFrame) -> list[str]:
    """What to know where train holds a text in several groups: val and test may, but train is what is removed from."""
    num_twins = int(text_keys(train["text"]).duplicated().sum())
    if not num_twins:
        return []
    return [
        f"{num_twins:,} train rows repeat a text in another group: it weighs twice, and its removal leaves its twin"
    ]


def _check_characters(name: str, split: str, frame: pd.DataFrame) -> None:
    """A NUL ends a text for some tokenizers and tables, and a lone surrogate can be written by none."""
    for column in ("example_id", "text", "group"):
        for example_id, value in zip(frame["example_id"], frame[column], strict=True):
            found = UNSTORABLE.search(value)
            if found:
                raise DataError(
                    f"{name}, {split} example {example_id!a}: its {column} is Unicode text without NUL, received "
                    f"character {ord(found.group()):#06x}; remove the character, or leave the example out"
                )


def _check_train_labels(name: str, labels: pd.Series, label_names: Sequence[str]) -> None:
    absent = [label_name for label, label_name in enumerate(label_names) if not (labels == label).any()]
    if absent:
        raise DataError(
            f"train of {name} has examples of every label, it has none of {', '.join(absent)}: a model cannot learn "
            "a label that it never sees; give it some"
        )


def _check_group_names(names: Sequence[str]) -> None:
    keys = {name: reading_key(name) for name in names}
    like_cells = {name for name in names if any(keys[name].startswith(f"{k}{CELL_SEPARATOR}") for k in keys.values())}
    taken = sorted({name for name in names if keys[name] in SUMMARY_GROUPS} | like_cells)
    if taken:
        raise DataError(
            f"a group is not called {', '.join(SUMMARY_GROUPS)}, nor like a group's cell (black{CELL_SEPARATOR}1): "
            f"results use these names; received {listed(taken)}; rename the group"
        )


def _check_same_groups(name: str, split: str, groups: set[str], vocabulary: set[str]) -> None:
    rule = f"train, val and test of {name} have the same groups"
    if groups - vocabulary:
        raise DataError(
            f"{rule}; {split} has {listed(groups - vocabulary)}, train has {listed(vocabulary)}: "
            f"correct the spelling, give train examples of the group, or leave it out of {split}"
        )
    if vocabulary - groups:
        raise DataError(
            f"{rule}; {split} has no example of {listed(vocabulary - groups)}: give it some, or leave the group out "
            "(d3m-ray run own --min-group-size 1 does)"
        )
