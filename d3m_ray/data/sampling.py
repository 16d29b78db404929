"""Cut corpora to size: repeated and leaked texts out, then so many rows per group and label."""

from collections.abc import Iterable, Mapping, MutableMapping

import numpy as np
import pandas as pd

from d3m_ray.data.checks import text_keys
from d3m_ray.records import BINARY_LABELS

NUM_LABELS = len(BINARY_LABELS)  # of ToxiGen, HateXplain and planted text
VAL_FRACTION = 0.2  # of each cell, as the thesis cut it
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
    """The first row of each text, or of each text and group; texts that read alike (`text_keys`) are one."""
    keys = text_keys(frame["text"])
    repeated = frame.assign(text=keys).duplicated(["text", "group"]) if per_group else keys.duplicated()
    return frame[~repeated]


def once_per_text(frame: pd.DataFrame) -> pd.DataFrame:
    """One row of each text, that of its rarest group; of equals, the first. The order stays.

    In train, a text that stood once per group would weigh several times, and its removal would leave its twins.
    """
    rarity = frame["group"].map(frame["group"].value_counts())
    kept = text_keys(frame["text"])[rarity.sort_values(kind="stable").index].drop_duplicates().index
    return frame[frame.index.isin(kept)]


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


def cut_by_share(
    frame: pd.DataFrame, shares: Mapping[str, float], rng: np.random.Generator
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """The rows that stay, and a part of them by name for each share of the whole; disjoint, in the frame's order.

    The rows of texts that read alike (`text_keys`) stay together. Every group gives each part its share of texts,
    rounded, at least one, and leaves one, where it has as many texts as there are parts and a rest; within a group, so
    does every label as far as its texts reach.
    """
    clusters = frame.assign(cluster=text_keys(frame["text"])).drop_duplicates("cluster")
    taken: dict[str, str] = {}
    for _, of_group in clusters.groupby("group"):
        cells = [rng.permutation(rows["cluster"].to_numpy(object)).tolist() for _, rows in of_group.groupby("label")]
        sizes = np.array([len(cell) for cell in cells])
        for number, (part, share) in enumerate(shares.items()):
            left = np.array([len(cell) for cell in cells])
            spare = left.sum() - (len(shares) - number)  # what later parts and the rest need one each of
            num_taken = int(max(0, min(max(1, round(share * sizes.sum())), spare)))
            for cell, count in zip(cells, _apportion(num_taken, sizes, left), strict=True):
                taken.update((cell.pop(), part) for _ in range(count))
    parts = text_keys(frame["text"]).map(taken)
    return frame[parts.isna()], {part: frame[parts == part] for part in shares}


def _apportion(total: int, sizes: np.ndarray, left: np.ndarray) -> np.ndarray:
    """`total` shared out in proportion to the sizes (largest remainder), no cell emptied while another can give."""
    exact = total * sizes / sizes.sum()
    counts = np.minimum(np.floor(exact).astype(int), left)
    by_remainder = np.argsort(counts - exact, kind="stable")
    for keeps in (1, 0):
        while counts.sum() < total and (open_cells := [c for c in by_remainder if left[c] - counts[c] > keeps]):
            for cell in open_cells[: total - counts.sum()]:
                counts[cell] += 1
    return counts
