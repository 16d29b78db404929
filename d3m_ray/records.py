"""The frozen values that pass between the stages; numpy only.

Shapes: N examples of one split, M removed examples, G groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from d3m_ray.keys import content_hash

SPLIT_NAMES = ("train", "val", "test")
DeviceKind = Literal["cpu", "cuda"]
FIRST_DRAW = 1_000_000  # seeds from here on belong to the subsets of an LDS, which no arm has
BINARY_LABELS = ("0", "1")  # label 1 is the hateful, toxic or otherwise positive one


def cells_of(groups: np.ndarray, labels: np.ndarray, num_labels: int) -> np.ndarray:
    """[N] int64: the cell, a (group, label), of each example: group * L + label, given both [N]."""
    return groups * num_labels + labels


def _frozen(values: Any, dtype: Any) -> np.ndarray:
    array = np.array(values, dtype=dtype)
    array.setflags(write=False)
    return array


def read_only(array: np.ndarray) -> np.ndarray:
    """The same memory, not to be written to: what several stages share, none may change for the others."""
    view = array.view()
    view.setflags(write=False)
    return view


@dataclass(frozen=True, eq=False)
class Examples:
    """One split, or a part of one. Arrays are read-only.

    Raises ValueError where the fields differ in length, an id repeats, or a label is below 0.
    """

    split: str
    """One of `SPLIT_NAMES`: what the examples may be used for."""
    example_ids: np.ndarray
    """[N] strings, unique."""
    texts: tuple[str, ...]
    """N strings."""
    labels: np.ndarray
    """[N] int64 indices into `Splits.label_names`."""
    groups: np.ndarray
    """[N] int64 indices into the vocabulary `Splits.group_names`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "example_ids", _frozen(self.example_ids, np.str_))
        object.__setattr__(self, "texts", tuple(self.texts))
        object.__setattr__(self, "labels", _frozen(self.labels, np.int64))
        object.__setattr__(self, "groups", _frozen(self.groups, np.int64))
        if self.split not in SPLIT_NAMES:
            raise ValueError(f"a split is one of {SPLIT_NAMES}, received {self.split!r}")
        lengths = {len(self.example_ids), len(self.texts), len(self.labels), len(self.groups)}
        if len(lengths) != 1:
            raise ValueError(f"ids, texts, labels and groups have one length, received {sorted(lengths)}")
        if len(np.unique(self.example_ids)) != len(self.example_ids):
            raise ValueError(f"example ids are unique within a split; {self.split} repeats one")
        if len(self.labels) and self.labels.min() < 0:
            raise ValueError(f"labels count from 0, received {np.unique(self.labels).tolist()} in {self.split}")

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        """The examples at these positions, in the order given."""
        picked = np.asarray(indices, dtype=np.int64)
        return Examples(
            split=self.split,
            example_ids=self.example_ids[picked],
            texts=tuple(self.texts[i] for i in picked),
            labels=self.labels[picked],
            groups=self.groups[picked],
        )

    def without(self, removed_ids: Sequence[str] | np.ndarray) -> "Examples":
        """The examples left when these ids are removed, in their order. Raises KeyError on an unknown id."""
        removed = np.asarray(removed_ids, dtype=np.str_)
        unknown = removed[~np.isin(removed, self.example_ids)]
        if len(unknown):
            raise KeyError(f"removed ids stand in {self.split}; {unknown[:3].tolist()} do not")
        return self.take(np.flatnonzero(~np.isin(self.example_ids, removed)))

    def content_hash(self) -> str:
        """Hash of everything that a model can see of these examples, and of their ids and groups."""
        return content_hash(
            self.split, self.example_ids.tolist(), self.texts, self.labels.tobytes(), self.groups.tobytes()
        )


@dataclass(frozen=True, eq=False)
class Splits:
    """A corpus: disjoint train, val and test examples whose groups and labels come from one vocabulary each.

    One text may stand in one split several times, once per group that it targets; it never stands in two splits. Where
    it does so in train, a removal takes one of them.
    Raises ValueError where that, or a non-empty group in val and test, does not hold.
    """

    name: str
    group_names: tuple[str, ...]
    """The vocabulary, G names, sorted."""
    train: Examples
    val: Examples
    test: Examples
    num_dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out by the loader, by reason, for example {"train text also in test": 12}."""
    harmful_ids: frozenset[str] = frozenset()
    """Train ids known to be harmful: made corpora only, empty for real ones."""
    label_names: tuple[str, ...] = BINARY_LABELS
    """What the labels are called, L names; of two, the second is the positive one, which fpr, fnr and auc speak of."""
    notes: tuple[str, ...] = ()
    """What the loader decided where the user might have thought otherwise, a phrase each, to be shown."""

    def __post_init__(self) -> None:
        if len(self.label_names) < 2 or len(set(self.label_names)) != len(self.label_names):
            raise ValueError(f"a corpus has at least two labels of different names, received {self.label_names}")
        for split, examples in self.by_name().items():
            if examples.split != split:
                raise ValueError(f"field {split!r} holds {split} examples, received {examples.split!r} examples")
            if len(examples) and not 0 <= examples.groups.min() <= examples.groups.max() < len(self.group_names):
                raise ValueError(f"{split} holds a group index outside the vocabulary of {len(self.group_names)}")
            if len(examples) and examples.labels.max() >= self.num_labels:
                raise ValueError(f"{split} holds a label outside the vocabulary of {self.num_labels}")
        for split in ("val", "test"):
            counts = np.bincount(self.by_name()[split].groups, minlength=len(self.group_names))
            empty = [name for name, count in zip(self.group_names, counts, strict=True) if count == 0]
            if empty:
                raise ValueError(f"every group has examples in {split}; these have none: {', '.join(empty)}")
        for left, right in (("train", "val"), ("train", "test"), ("val", "test")):
            shared = set(self.by_name()[left].texts) & set(self.by_name()[right].texts)
            if shared:
                raise ValueError(f"a text stands in one split only; {len(shared)} stand in {left} and in {right}")

    @property
    def num_labels(self) -> int:
        return len(self.label_names)

    def by_name(self) -> dict[str, Examples]:
        return {"train": self.train, "val": self.val, "test": self.test}

    def content_hash(self) -> str:
        """Hash of the content of all splits and of the vocabularies; the corpus name does not enter."""
        of_splits = [examples.content_hash() for examples in self.by_name().values()]
        return content_hash(self.group_names, self.label_names, of_splits)


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of N examples.

    `labels` is [N] int64, the true ones. `margins` is [N] float32, correct logit minus logsumexp of the others: above 0
    where the model gives the true label more than half of the probability. `predicted` is [N] int64, the label of the
    largest logit; of a tie with the true label, the other one. `probabilities` is [N] float32, that of label 1; NaN
    where there are more than two labels.
    """

    labels: np.ndarray
    margins: np.ndarray
    predicted: np.ndarray
    probabilities: np.ndarray

    @property
    def is_correct(self) -> np.ndarray:
        """[N] bool: whether the predicted label is the true one; with two labels, whether the margin is above 0."""
        return self.predicted == self.labels

    @property
    def losses(self) -> np.ndarray:
        """[N] float64 cross-entropies in nats: log(1 + exp(-margin)), exact for any margin."""
        return np.logaddexp(0.0, -self.margins.astype(np.float64))


QueryTarget = Literal["margin", "loss", "probability"]
"""What is asked of one val example: its margin, minus its loss, or the probability of its true label."""
