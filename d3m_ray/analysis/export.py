"""The train split without what an arm removed, and of each example that it lacks, why it went."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from d3m_ray.analysis.corpus import train_examples
from d3m_ray.analysis.results import Results, Scores
from d3m_ray.store.errors import StoreError

CORPUS_COLUMNS = ["example_id", "text", "label", "group"]
CELL = ["group", "label"]


@dataclass(frozen=True, eq=False)
class Export:
    """The two parts of train, each in train order; together they are all of it, every value as the corpus had it."""

    kept: pd.DataFrame
    """`example_id`, `text`, `label` (its name) and `group`."""
    removed: pd.DataFrame
    """These, and of an arm that goes by alignment the columns of `evidence_of`."""


def split_train(results: Results, removed_ids: Collection[str], evidence: pd.DataFrame | None) -> Export:
    """Train in two: what is kept, and what went with its evidence, by example id, if the arm read any.

    Raises StoreError where the store holds no texts of train, or a removed example is none of it.
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
    if evidence is not None:
        removed = removed.join(evidence, on="example_id")
    return Export(train[~is_removed].reset_index(drop=True), removed.reset_index(drop=True))


def evidence_of(results: Results, alignment: str) -> pd.DataFrame:
    """By example id, what an alignment says of it, in train order.

    `rank` (1 is the lowest; of equals, the first in train order) among the `num_ranked` that were aligned, `alignment`,
    and the `most_hurt_group`, of the lowest score: whose target the example lowers most, or raises least, with it,
    `most_hurt_score`; these two are missing where no scores of several groups are stored, as of a method that scores
    their weighed sum. Raises StoreError where the alignment is not stored.
    """
    if alignment not in results.alignments:
        raise StoreError(
            f"{results.store} holds no alignment of {alignment} of {results.name}; run the sweep, which goes on from "
            "there"
        )
    aligned = results.alignments[alignment].set_index("example_id")["alignment"]
    ranks = aligned.rank(method="first").astype("int64")
    evidence = pd.DataFrame({"rank": ranks, "num_ranked": len(aligned), "alignment": aligned})
    scores = results.scores.get(alignment)
    return evidence if scores is None or len(scores.query_sets) == 1 else evidence.join(_most_hurt(scores))


def check_made_by(results: Results, alignment: str, evidence: pd.DataFrame, removed_ids: Collection[str]) -> None:
    """Raises StoreError where an alignment, given by `evidence_of`, is not the one that a removal of one round went by.

    An experiment that another version went on with has its newer alignments beside its older trials. Of each cell a
    removal takes the lowest, whatever floors the cells have, or the highest.
    """
    went = evidence.index.isin(list(removed_ids))
    cells = evidence[["alignment"]].join(results.train_cells).groupby([*CELL, went])["alignment"]
    lowest, highest = (of_cells.unstack(-1).reindex(columns=[False, True]) for of_cells in (cells.min(), cells.max()))
    both = lowest.notna().all(axis=1)
    are_lowest = (highest[True] <= lowest[False])[both].all()
    are_highest = (lowest[True] >= highest[False])[both].all()
    if not (are_lowest or are_highest):
        raise StoreError(
            f"{results.store} holds another alignment of {alignment} of {results.name} than the one that its removal "
            "went by, as where another version went on with it; run the same sweep again"
        )


def evidence_of_rounds(
    results: Results, alignment: str, keys: Sequence[str], removed_ids: Collection[str]
) -> pd.DataFrame:
    """As `evidence_of`, of the removed examples alone, each by the round in which it went, and that `round`, from 1.

    `keys` are those of the alignments that the rounds read. Raises StoreError where one is not stored.
    """
    of_rounds = [evidence_of(_of_round(results, alignment, key), alignment) for key in keys]
    parts = []
    for number, evidence in enumerate(of_rounds):
        went = evidence.index.isin(list(removed_ids))
        if number + 1 < len(of_rounds):
            went &= ~evidence.index.isin(of_rounds[number + 1].index)
        parts.append(evidence[went].assign(round=number + 1))
    return pd.concat(parts)


def _of_round(results: Results, alignment: str, key: str) -> Results:
    """The same with the alignment of one round in the place of that of all of train, and the scores that it weighs."""
    store, keys = results.store, {"alignments": {alignment: key}}
    if store.has("alignments", key, alignment):
        made_with = store.read_metadata("alignments", key, alignment)["configuration"]
        keys["scores"] = {alignment: made_with["scores_key"]}
    return Results(store, replace(results.record, keys=keys), results.all_trials)


def _most_hurt(scores: Scores) -> pd.DataFrame:
    lowest = scores.values.argmin(axis=1)
    return pd.DataFrame(
        {
            "most_hurt_group": np.array(scores.query_sets, dtype=object)[lowest],
            "most_hurt_score": scores.values[np.arange(len(lowest)), lowest],
        },
        index=pd.Index(scores.example_ids, name="example_id"),
    )
