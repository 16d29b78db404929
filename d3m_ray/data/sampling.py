"""Cut corpora to size: repeated and leaked texts out, then so many rows per group and label."""

from collections.abc import Iterable, Mapping, MutableMapping

import numpy as np
import pandas as pd

from d3m_ray.data.checks import text_keys
from d3m_ray.records import BINARY_LABELS

NUM_LABELS = len(BINARY_LABELS)  # of ToxiGen, HateXplain and planted text
VAL_FRACTION = 0.2
CELL = ["group", "label"]


def drop_texts_of(
    frames: MutableMapping[str, pd.DataFrame],
    split: str,
    others: Iterable[str],
    num_dropped: MutableMapping[str, int],
) -> None:
    """Leave out of one split, in place, the texts that stand in the others, and count the rows."""
    for other in others:
        leaked = text_keys(frames[split]["text"]).isin(set(text_keys(frames[other]["text"])))
        frames[split] = frames[split][~leaked]
        num_dropped[f"{split} text also in {other}"] = int(leaked.sum())


def drop_repeats(frame: pd.DataFrame, per_group: bool) -> pd.DataFrame:
    """The first row of each text, or of each text and group; case and white space do not tell texts apart."""
    keys = text_keys(frame["text"])
    repeated = frame.assign(text=keys).duplicated(["text", "group"]) if per_group else keys.duplicated()
    return frame[~repeated]


def cell_counts(frame: pd.DataFrame, groups: Iterable[str]) -> dict[tuple[str, int], int]:
    """The rows of each (group, label), zeros included."""
    counts = frame.groupby(CELL).size()
    return {(group, label): int(counts.get((group, label), 0)) for group in groups for label in range(NUM_LABELS)}


def sample_cells(frame: pd.DataFrame, sizes: Mapping[tuple[str, int], int], rng: np.random.Generator) -> pd.DataFrame:
    """That many random rows of each (group, label), in the order of the frame. A cell has no fewer."""
    parts = [
        frame[(frame["group"] == group) & (frame["label"] == label)].sample(n=sizes[group, label], random_state=rng)
        for group, label in sorted(sizes)
    ]
    return pd.concat(parts).sort_index()


def split_off_val(frame: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that stay and a random fifth of each (group, label), at least one row of it; disjoint."""
    parts = [
        rows.sample(n=max(1, round(VAL_FRACTION * len(rows))), random_state=rng) for _, rows in frame.groupby(CELL)
    ]
    val = pd.concat(parts).sort_index()
    return frame.drop(val.index), val
