"""HateXplain (Mathew et al. 2021, arXiv 2012.10289): posts labelled by three annotators who name the targets."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.data.checks import UNSTORABLE, DataError, make_splits, reading_key, shown
from d3m_ray.data.files import check_is_corpus
from d3m_ray.data.sampling import (
    CELL,
    NUM_LABELS,
    cell_counts,
    drop_repeats,
    drop_texts_of,
    once_per_text,
    sample_cells,
)
from d3m_ray.data.tables import load_from_hub
from d3m_ray.data.text_files import reject_twice
from d3m_ray.errors import InputError
from d3m_ray.records import SPLIT_NAMES, Splits

HUB_NAME = "Hate-speech-CNERG/hatexplain"
HUB_REVISION = "refs/convert/parquet"  # the main branch is a script, which is never run
HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}
HUB_LABELS = ("hatespeech", "normal", "offensive")  # the hub's class numbers
LABELS = {"hatespeech": 1, "offensive": 1, "normal": 0}
REDUCTION = 4  # neutral rows of reduced groups are cut to a quarter: the planted spurious correlation


@dataclass(frozen=True)
class Hatexplain:
    """How HateXplain is cut."""

    groups: tuple[str, ...] = ("African", "Islam", "Refugee", "Women")
    """Targets that become groups, as the annotators name them."""
    min_votes: int = 2
    """Annotators, of three, who name a target before a post belongs to it."""
    reduced_groups: tuple[str, ...] = ("African",)
    """Groups whose neutral posts are cut to a quarter in train and val."""
    seed: int = 0
    """Decides which posts are taken."""

    def __post_init__(self) -> None:
        if not self.groups or len(set(self.groups)) != len(self.groups):
            raise InputError(f"--groups are one or more names, each once, received {self.groups}")
        if not set(self.reduced_groups) <= set(self.groups):
            raise InputError(f"--reduced-groups are of --groups {self.groups}, received {self.reduced_groups}")
        if not 1 <= self.min_votes <= 3:
            raise InputError(f"--min-votes is 1, 2 or 3, received {self.min_votes}")
        if self.seed < 0:
            raise InputError(f"--seed is at least 0, received {self.seed}")


@dataclass(frozen=True)
class Post:
    """One post as its annotators saw it."""

    post_id: str
    split: str
    text: str
    labels: tuple[str, ...]
    """Each annotator's, one of `LABELS`."""
    targets: tuple[tuple[str, ...], ...]
    """Those that each annotator names."""


def load_hatexplain(options: Hatexplain, source: Path | None) -> Splits:
    """The splits, from a folder of dataset.json and post_id_divisions.json, or from the hub; ids are `post_id/group`.

    The label is the majority's; posts without one are dropped and counted. In val and test a post stands once per
    group, in train under the rarest of its groups alone. In train and val all cells (group and label) are cut to one
    size, the neutral cells of reduced groups to a quarter of it; in test all to the smallest. Raises DataError where a
    file breaks a rule or a cell is empty.
    """
    num_dropped: Counter[str] = Counter()
    where = str(source) if source is not None else HUB_NAME
    posts = list(_read_folder(source, num_dropped) if source is not None else _read_hub())
    _check_targets(options.groups, posts, where)
    rows = pd.DataFrame(_group_rows(posts, options, num_dropped), columns=["split", "example_id", "text", *CELL])
    frames = {}
    for split in SPLIT_NAMES:
        of_split = rows[rows["split"] == split]
        frames[split] = drop_repeats(of_split, per_group=True)
        num_dropped[f"{split} post repeats another"] = len(of_split) - len(frames[split])
    drop_texts_of(frames, "train", ("test", "val"), num_dropped)
    drop_texts_of(frames, "val", ("test",), num_dropped)
    in_every_group, frames["train"] = frames["train"], once_per_text(frames["train"])
    num_dropped["train row of a post that stands in another group"] = len(in_every_group) - len(frames["train"])
    rng = np.random.default_rng(options.seed)
    for split in SPLIT_NAMES:
        reduced = () if split == "test" else options.reduced_groups
        sizes = _cell_sizes(frames[split], options.groups, reduced, f"{where}, {split}")
        frames[split] = sample_cells(frames[split], sizes, rng)
    return make_splits("hatexplain", frames, num_dropped)


def _group_rows(
    posts: Iterable[Post], options: Hatexplain, num_dropped: Counter[str]
) -> Iterator[tuple[str, str, str, str, int]]:
    """(split, id, text, group, label) per post with a majority and group with enough votes."""
    for post in posts:
        if not reading_key(post.text):
            num_dropped["post without text"] += 1
            continue
        label, votes = Counter(post.labels).most_common(1)[0]
        if 2 * votes <= len(post.labels):
            num_dropped["post without a majority label"] += 1
            continue
        named = Counter(target for targets in post.targets for target in set(targets))
        for group in options.groups:
            if named[group] >= options.min_votes:
                yield post.split, f"{post.post_id}/{group}", post.text, group, LABELS[label]


def _cell_sizes(
    frame: pd.DataFrame, groups: Sequence[str], reduced_groups: Sequence[str], what: str
) -> dict[tuple[str, int], int]:
    """The rows taken per cell: the most that lets every cell have the same, and reduced ones a quarter of it."""
    shares = {
        (group, label): 1 / REDUCTION if label == 0 and group in reduced_groups else 1.0
        for group in groups
        for label in range(NUM_LABELS)
    }
    counts = cell_counts(frame, groups)
    for (group, label), count in counts.items():
        if count == 0:
            raise DataError(
                f"{what}: every group has posts of both labels, {group} has none of label {label}; "
                "leave it out of --groups, or lower --min-votes"
            )
    whole = min(int(counts[cell] / share) for cell, share in shares.items())
    return {cell: max(1, int(whole * share)) for cell, share in shares.items()}


def _check_targets(groups: Sequence[str], posts: Sequence[Post], where: str) -> None:
    known = {target for post in posts for targets in post.targets for target in targets}
    unknown = sorted(set(groups) - known)
    if unknown:
        raise DataError(
            f"{where}: --groups are of {', '.join(sorted(known))}; received {', '.join(unknown)}; correct the spelling"
        )


def _read_folder(folder: Path, num_dropped: Counter[str]) -> Iterator[Post]:
    names = ("dataset.json", "post_id_divisions.json")
    rule = f"holds HateXplain as {' and '.join(names)}"
    check_is_corpus(folder, "HateXplain", {name: (folder / name).exists() for name in names}, rule)
    dataset, divisions = (_read_json(folder / name) for name in names)
    split_of = _split_of_posts(divisions, dataset, str(folder / names[1]))
    num_dropped["post in no division"] = len(dataset) - len(split_of)
    for post_id, split in split_of.items():
        yield _as_post(post_id, split, dataset[post_id], str(folder / names[0]))


def _split_of_posts(divisions: Mapping[str, Any], dataset: Mapping[str, Any], where: str) -> dict[str, str]:
    """The split of each post id, in the order of the divisions."""
    split_of: dict[str, str] = {}
    for split in SPLIT_NAMES:
        if not _are_strings(divisions.get(split)) or not divisions[split]:
            raise DataError(
                f"{where}: lists the post ids of train, val and test, those of {split} are missing or no list of "
                "strings in Unicode; add them"
            )
        for post_id in divisions[split]:
            if post_id not in dataset:
                raise DataError(
                    f"{where}: every post stands in dataset.json, {post_id!r} of {split} does not; remove it"
                )
            first = split_of.setdefault(post_id, split)
            if first != split:
                raise DataError(
                    f"{where}: a post stands in one split, {post_id!r} in {first} and {split}; list it once"
                )
    return split_of


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=reject_twice)
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: not readable as JSON ({error}); fetch it again") from error
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path}: is a JSON object with entries, received {type(content).__name__}; fetch it again")
    return content


def _read_hub() -> Iterator[Post]:
    splits = load_from_hub(HUB_NAME, revision=HUB_REVISION)
    for split, hub_split in HUB_SPLITS.items():
        for row in splits[hub_split]:
            annotators = row["annotators"]
            if isinstance(annotators, Mapping):  # Parquet turns a list of records into a record of lists
                columns = zip(*annotators.values(), strict=True)
                annotators = [dict(zip(annotators, values, strict=True)) for values in columns]
            named = [{**a, "label": dict(enumerate(HUB_LABELS)).get(a["label"], a["label"])} for a in annotators]
            yield _as_post(row["id"], split, {"annotators": named, "post_tokens": row["post_tokens"]}, HUB_NAME)


def _as_post(post_id: str, split: str, entry: object, where: str) -> Post:
    """The post, once each of its parts is of the kind that it must be: a string would pass for a list of letters."""

    def check(holds: bool, part: str, kind: str, received: object) -> None:
        if not holds:
            raise DataError(
                f"{where}, post {post_id}: {part} {kind}, received {shown(received)}; fetch the corpus again, or leave "
                "the post out"
            )

    record = entry if isinstance(entry, Mapping) else {}
    tokens, annotators = record.get("post_tokens"), record.get("annotators")
    check(_are_strings(tokens), "post_tokens", "is a list of strings in Unicode without NUL", tokens)
    check(isinstance(annotators, list) and bool(annotators), "annotators", "is a list of one or more", annotators)
    for annotator in annotators or ():
        check(isinstance(annotator, Mapping), "annotators", "are objects with label and target", annotator)
        check(
            _are_strings(annotator.get("target")),
            "target",
            "is a list of strings in Unicode without NUL",
            annotator.get("target"),
        )
        label = annotator.get("label")
        check(isinstance(label, str) and label in LABELS, "label", f"is one of {', '.join(LABELS)}", label)
    return Post(
        post_id,
        split,
        " ".join(tokens or ()),
        tuple(annotator["label"] for annotator in annotators or ()),
        tuple(tuple(annotator["target"]) for annotator in annotators or ()),
    )


def _are_strings(values: object) -> bool:
    """Whether the values are a list of strings that can be stored: in Unicode without NUL."""
    return isinstance(values, list | tuple) and all(
        isinstance(value, str) and not UNSTORABLE.search(value) for value in values
    )
