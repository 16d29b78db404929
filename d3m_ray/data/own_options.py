"""How an own corpus is read: columns, labels, groups and splits; the flags of d3m-ray run own."""

import math
from dataclasses import dataclass
from typing import Literal

from d3m_ray.data.checks import NAME
from d3m_ray.data.values import canonical
from d3m_ray.errors import InputError
from d3m_ray.records import SPLIT_NAMES

DEFAULT_SHARE = 0.2  # of the rows, for val and again for test


@dataclass(frozen=True)
class Own:
    """How a folder or file of your own is read. The README's page on corpora has examples."""

    name: str | None = None
    """What the corpus is called; left out, the folder's or file's name."""
    text_columns: tuple[str, ...] = ("text",)
    """The column of the text; several are joined by " | "."""
    label_column: str = "label"
    """The column of the label: words or whole numbers, two or more different ones."""
    labels: tuple[str, ...] = ()
    """The labels in order; of two, the second is the positive one. Left out, by number or alphabet."""
    label_threshold: float | None = None
    """Turns scores into two labels: 1 at or above it, 0 below."""
    group_columns: tuple[str, ...] = ()
    """The column of the group, "group" if left out; of several, each combination is a group, "a & b"."""
    identity_columns: tuple[str, ...] = ()
    """Instead of --group-columns: one column per identity, 0 or 1 or a score; a row may have several identities."""
    identity_threshold: float | None = None
    """A row has an identity whose score is at or above it; 0.5 if left out."""
    no_identity_group: str | None = None
    """The group of rows without any identity, "none" if left out; "" leaves the rows out."""
    missing_identities: Literal["drop", "zero"] = "drop"
    """Rows in which an identity is blank: left out and counted, or read as 0."""
    split_column: str | None = None
    """The column that says train, val (validation, valid, dev) or test, where one file holds all."""
    split_values: tuple[str, ...] = ()
    """What stands in --split-column for train, val and test, in this order, if other words."""
    val_share: float | None = None
    """Share of the texts cut off as val where nothing else says which are val; 0.2 if left out."""
    test_share: float | None = None
    """The same for test."""
    split_seed: int = 0
    """Decides which texts are cut off."""
    bad_rows: Literal["refuse", "drop"] = "refuse"
    """Rows without text, label, group or split, of one text with two labels, or of a text of val or test in train:
    refuse the corpus at the first, or leave them out and count them."""
    min_group_size: int = 0
    """Groups with fewer rows in a split are left out and counted; at 0, a group that a split lacks is refused."""

    def __post_init__(self) -> None:
        if self.name is not None and not NAME.fullmatch(self.name):
            raise InputError(
                f"--name is of letters, digits, dots, dashes and underscores, at most 60, received {self.name!r}"
            )
        self._check_columns()
        self._check_labels()
        self._check_splits()
        if self.min_group_size < 0:
            raise InputError(f"--min-group-size is at least 0, received {self.min_group_size}")

    @property
    def groups_by(self) -> tuple[str, ...]:
        """The columns that give the group."""
        return self.identity_columns or self.group_columns or ("group",)

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read, each once."""
        split = () if self.split_column is None else (self.split_column,)
        return tuple(dict.fromkeys((*self.text_columns, self.label_column, *self.groups_by, *split)))

    def _check_columns(self) -> None:
        for flag, names in (
            ("--text-columns", self.text_columns),
            ("--group-columns", self.group_columns),
            ("--identity-columns", self.identity_columns),
        ):
            if len(set(names)) != len(names):
                raise InputError(f"{flag} names a column once, received {' '.join(names)}")
        if not self.text_columns:
            raise InputError("--text-columns names at least one column, received none")
        if self.group_columns and self.identity_columns:
            raise InputError("groups come from --group-columns or --identity-columns, received both; leave one out")
        if not self.identity_columns:
            for flag, value in (
                ("--identity-threshold", self.identity_threshold),
                ("--no-identity-group", self.no_identity_group),
            ):
                if value is not None:
                    raise InputError(f"{flag} speaks of --identity-columns, received {value!r} without any; name them")
            if self.missing_identities != "drop":
                raise InputError("--missing-identities speaks of --identity-columns, received none; name them")
        if self.no_identity_group in self.identity_columns:
            raise InputError(f"--no-identity-group is none of --identity-columns, received {self.no_identity_group!r}")
        if self.identity_threshold is not None and not 0 < self.identity_threshold <= 1:
            raise InputError(f"--identity-threshold is above 0 and at most 1, received {self.identity_threshold}")

    def _check_labels(self) -> None:
        if "" in map(canonical, self.labels):
            raise InputError(f"--labels are words, received {self.labels}, of which one is blank; leave it out")
        if self.labels and (len(self.labels) < 2 or len(set(map(canonical, self.labels))) != len(self.labels)):
            raise InputError(f"--labels are two or more, each once, received {' '.join(self.labels)}")
        if self.label_threshold is None:
            return
        if not math.isfinite(self.label_threshold):
            raise InputError(f"--label-threshold is a finite number, received {self.label_threshold}")
        if self.labels and len(self.labels) != 2:
            raise InputError(
                f"--label-threshold makes two labels, below it and at or above it; received {len(self.labels)} --labels"
            )

    def _check_splits(self) -> None:
        if self.split_values and self.split_column is None:
            raise InputError("--split-values speaks of --split-column, received none; name it")
        if self.split_values and (len(self.split_values) != 3 or len(set(map(canonical, self.split_values))) != 3):
            raise InputError(
                f"--split-values are three, for {', '.join(SPLIT_NAMES)}, received {' '.join(self.split_values)}"
            )
        for flag, share in (("--val-share", self.val_share), ("--test-share", self.test_share)):
            if share is not None and not 0 < share < 1:
                raise InputError(f"{flag} is above 0 and below 1, received {share}")
        if sum(share or 0 for share in (self.val_share, self.test_share)) >= 1:
            raise InputError(
                f"--val-share and --test-share leave train a share, received {self.val_share} and {self.test_share}"
            )
        if self.split_seed < 0:
            raise InputError(f"--split-seed is at least 0, received {self.split_seed}")
