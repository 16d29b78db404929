"""Scores and alignments summed up: means by group, and how far they reach.

Shapes: N train examples, S query sets. A score is the effect of a train example on the target of a query set, positive
where it raises it. `method` is the name of an alignment, `trak` or `trak_auto`, and of the scores that it was made of.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from d3m_ray.analysis.corpus import group_names, label_names, named, train_examples
from d3m_ray.analysis.results import Results, Scores, once

RANGES = ["num_values", "min", "mean", "max", "std"]
RANGE_COLUMNS = ["method", "quantity", "group", "label_name", "query_set", *RANGES]
_NO_ALIGNMENT = pd.DataFrame({"group": [], "label": [], "alignment": []})


def mean_scores(results: Results, name: str) -> pd.DataFrame:
    """Mean score of the examples of each train group (rows) for each query set (columns); empty without such scores.

    Both are sorted by name, but pseudo-groups, which stay in their order.
    """
    scores = results.scores.get(name)
    groups = None if scores is None else _groups_of(results, scores.example_ids)
    if scores is None or groups is None:
        return pd.DataFrame(index=pd.Index([], name="group"), columns=pd.Index([], name="query_set"), dtype="float64")
    names = sorted(groups.unique())
    means = [scores.values[groups == group].mean(axis=0, dtype=np.float64) for group in names]
    columns = pd.Index(scores.query_sets, name="query_set")
    return pd.DataFrame(means, index=pd.Index(names, name="group"), columns=columns)[_in_order(results, scores)]


def mean_alignments(results: Results, name: str) -> pd.DataFrame:
    """Mean alignment of the examples of each train group (rows, sorted) and label (columns, by their numbers).

    NaN where a cell has no examples; empty without such an alignment.
    """
    rows = _aligned(results, name)
    means = rows.groupby(["group", "label_name"])["alignment"].mean().unstack("label_name")
    return means.reindex(columns=pd.Index(label_names(results) if len(rows) else [], name="label_name"))


@once
def score_ranges(results: Results) -> pd.DataFrame:
    """How far scores and alignments reach: one row per method, quantity, and part of the train examples.

    `quantity` is `score` or `alignment`. `group`, `label_name` and `query_set` say of what part; one that is missing
    stands for all of its kind. Scores without a `query_set` are each example's mean over the query sets. `num_values`,
    `min`, `mean`, `max` and `std` are over the examples; `std` divides by n - 1, NaN of one example.
    """
    rows = [*_score_rows(results), *_alignment_rows(results)]
    named = {"group": "str", "label_name": "str", "query_set": "str", "num_values": "int64"}
    return pd.DataFrame(rows, columns=RANGE_COLUMNS).astype(named)


def _score_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Over all examples and then of each group: each example's mean, then each query set."""
    for method, scores in results.scores.items():
        of_examples = scores.values.mean(axis=1, dtype=np.float64)
        order = _in_order(results, scores)
        groups = _groups_of(results, scores.example_ids)
        parts: dict[str | None, Any] = {None: slice(None)}
        if groups is not None:
            parts |= {group: (groups == group).to_numpy() for group in sorted(groups.unique())}
        for group, part in parts.items():
            values = scores.values[part].astype(np.float64)
            yield {"method": method, "quantity": "score", "group": group} | _range(of_examples[part])
            for name in order:
                column = values[:, scores.query_sets.index(name)]
                yield {"method": method, "quantity": "score", "group": group, "query_set": name} | _range(column)


def _alignment_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Of each method over all examples, of each group, and of each of its cells that has examples."""
    for method in results.alignments:
        rows = _aligned(results, method)
        yield {"method": method, "quantity": "alignment"} | _range(rows["alignment"].to_numpy())
        for group, of_group in rows.groupby("group"):
            part = {"method": method, "quantity": "alignment", "group": group}
            yield part | _range(of_group["alignment"].to_numpy())
            of_labels = dict(iter(of_group.groupby("label_name")["alignment"]))
            for name in (name for name in label_names(results) if name in of_labels):
                yield part | {"label_name": name} | _range(of_labels[name].to_numpy())


def _range(values: np.ndarray) -> dict[str, float]:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    figures = (len(values), float(values.min()), float(values.mean()), float(values.max()), deviation)
    return dict(zip(RANGES, figures, strict=True))


def _aligned(results: Results, name: str) -> pd.DataFrame:
    """The rows of an alignment with the labels' names; none where the store lacks it."""
    rows = results.alignments.get(name, _NO_ALIGNMENT)
    return rows.assign(label_name=named(results, rows["label"]))


def _groups_of(results: Results, example_ids: np.ndarray) -> pd.Series | None:
    """[N] the group of each of the examples, None where the store knows it not of all."""
    groups = train_examples(results).set_index("example_id")["group"].reindex(example_ids)
    return None if groups.isna().any() else groups


def _in_order(results: Results, scores: Scores) -> list[str]:
    """The query sets as they are to be shown: groups sorted, pseudo-groups in their order."""
    are_groups = set(scores.query_sets) <= set(group_names(results))
    return sorted(scores.query_sets) if are_groups else list(scores.query_sets)
