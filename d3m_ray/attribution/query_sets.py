"""Query sets: the queries of a group, whose mean target scores explain together."""

import numpy as np


def group_scores(query_scores: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """[N, G] float64: the mean of the scores [N, Q] over each group's queries, given the queries' groups [Q].

    Raises ValueError where a group has no query.
    """
    empty = np.flatnonzero(np.bincount(groups, minlength=num_groups) == 0)
    if len(empty):
        raise ValueError(f"each of the {num_groups} groups has queries; these have none: {empty.tolist()}")
    means = [query_scores[:, groups == group].mean(axis=1, dtype=np.float64) for group in range(num_groups)]
    return np.stack(means, axis=1)
