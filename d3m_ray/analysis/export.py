"""The train split without what an arm removed, and of each example that it lacks, why it went."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from d3m_ray.analysis.corpus import train_examples
from d3m_ray.analysis.results import Results, Scores
from d3m_ray.store import StoreError

CORPUS_COLUMNS = ["example_id", "text", "label", "group"]
EVIDENCE_COLUMNS = ["rank", "alignment", "most_hurt_group", "most_hurt_score"]


@dataclass(frozen=True, eq=False)
class Export:
    """The two parts of train, each in train order; together they are all of it, every value as the corpus had it."""

    kept: pd.DataFrame
    """`example_id`, `text`, `label` (its name) and `group`."""
    removed: pd.DataFrame
    """These, and of an arm that reads an alignment `EVIDENCE_COLUMNS`: the `rank` among all of train by alignment (1 is
    the lowest; of equals, the first in train order), the `alignment`, and the group whose margin the example's score
    lowers most, or raises least, with that score."""


def split_train(results: Results, removed_ids: Collection[str], alignment: str | None) -> Export:
    """Train in two: what is kept, and what went with its evidence; `alignment` is what the arm read, if anything.

    Raises StoreError where the store holds no texts of train, a removed example is none of it, or the alignment is not
    stored. Without stored scores, the columns of the most hurt group are missing.
    """
    train = train_examples(results)
    if train.empty or train["text"].isna().any():
        raise StoreError(
            f"{results.store} holds no texts of train of {results.name}, as with --no-store-texts or of an earlier "
            "version; run the same sweep with --store-texts, which trains nothing again"
        )
    train = train.assign(label=train["label_name"])[CORPUS_COLUMNS]
    is_removed = train["example_id"].isin(set(removed_ids))
    if is_removed.sum() != len(removed_ids):
        raise StoreError(
            f"{results.store} names {len(removed_ids)} removed examples of {results.name}, of which "
            f"{int(is_removed.sum())} stand in its train split; run the same sweep again"
        )
    removed = train[is_removed]
    if alignment is not None:
        removed = removed.join(_evidence(results, alignment), on="example_id")
    return Export(train[~is_removed].reset_index(drop=True), removed.reset_index(drop=True))


def _evidence(results: Results, alignment: str) -> pd.DataFrame:
    """By example id, `EVIDENCE_COLUMNS`."""
    if alignment not in results.alignments:
        raise StoreError(
            f"{results.store} holds no alignment of {alignment} of {results.name}; run the sweep, which goes on from "
            "there"
        )
    aligned = results.alignments[alignment].set_index("example_id")["alignment"]
    evidence = pd.DataFrame({"rank": aligned.rank(method="first").astype("int64"), "alignment": aligned})
    scores = results.scores.get(alignment)
    return evidence if scores is None else evidence.join(_most_hurt(scores))


def _most_hurt(scores: Scores) -> pd.DataFrame:
    lowest = scores.values.argmin(axis=1)
    return pd.DataFrame(
        {
            "most_hurt_group": np.array(scores.query_sets, dtype=object)[lowest],
            "most_hurt_score": scores.values[np.arange(len(lowest)), lowest],
        },
        index=pd.Index(scores.example_ids, name="example_id"),
    )
