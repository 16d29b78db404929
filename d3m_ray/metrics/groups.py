"""Metrics of one model's predictions per group, per cell and for the worst of each.

scikit-learn is imported where it is needed: it takes a second, and whoever reads the store needs the names here alone.
Shapes: N examples of one split, G groups, L labels. An answer is correct where the predicted label is the true one.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from d3m_ray.records import BINARY_LABELS, Examples, Predictions

METRICS = ("accuracy", "loss", "fpr", "fnr", "auc", "macro_f1")
TARGET_METRICS = ("margin", "soft_accuracy")
"""What a target of attribution other than the loss raises; beside `METRICS`, which figures and tables show."""
SUMMARY_GROUPS = ("all", "worst", "worst_cell")
CELL_SEPARATOR = "/"


def group_metrics(
    predictions: Predictions,
    examples: Examples,
    group_names: Sequence[str],
    label_names: Sequence[str] = BINARY_LABELS,
) -> pd.DataFrame:
    """One row per identity, per `identity/label` cell, and for `all`, `worst` and `worst_cell`, in that order.

    Columns: `group`, `num_examples`, `accuracy`, `loss` (mean cross-entropy in nats), `fpr` (share of label 0 answered
    1), `fnr` (share of label 1 answered 0), `auc` (of the probabilities of label 1, in the order of the margins, which
    round to no 1), `macro_f1` (the mean of the F1 scores of the labels that occur, as true or as predicted ones),
    `margin` (the mean margin) and `soft_accuracy` (the mean probability of the true label).
    `fpr` and `fnr` are NaN where the label they need is absent, `auc` and `macro_f1` where the rows have one label
    only, and the first three wherever there are more than two labels. A cell without examples has no row. `worst`
    repeats the row of the identity with the lowest accuracy, `worst_cell` that of the cell; the first in order wins a
    tie. In `all` a post of two groups counts twice, once per row of the split. Raises ValueError where a group has no
    examples or a name would make two rows alike.
    """
    _check_every_group(examples.groups, len(group_names))
    subsets = {name: examples.groups == group for group, name in enumerate(group_names)}
    cells = {
        f"{name}{CELL_SEPARATOR}{label_name}": (examples.groups == group) & (examples.labels == label)
        for group, name in enumerate(group_names)
        for label, label_name in enumerate(label_names)
    }
    row_names = [*group_names, *cells, *SUMMARY_GROUPS]
    if len(set(row_names)) != len(row_names):
        raise ValueError(f"group names are unique and none is in {SUMMARY_GROUPS}; received {list(group_names)}")
    is_binary = len(label_names) == len(BINARY_LABELS)
    identity_rows = [_row(name, rows, predictions, is_binary) for name, rows in subsets.items()]
    cell_rows = [_row(name, rows, predictions, is_binary) for name, rows in cells.items() if rows.any()]
    summary_rows = [
        _row("all", np.ones(len(examples), dtype=bool), predictions, is_binary),
        min(identity_rows, key=lambda row: row["accuracy"]) | {"group": "worst"},
        min(cell_rows, key=lambda row: row["accuracy"]) | {"group": "worst_cell"},
    ]
    return pd.DataFrame(
        identity_rows + cell_rows + summary_rows, columns=["group", "num_examples", *METRICS, *TARGET_METRICS]
    )


def group_losses(predictions: Predictions, groups: np.ndarray, num_groups: int) -> np.ndarray:
    """[G] float64: mean cross-entropy of each group's examples, in nats; `groups` is [N].

    Raises ValueError where a group has no examples.
    """
    return _group_means(predictions.losses, groups, num_groups)


def cell_losses(
    predictions: Predictions, cells: np.ndarray, num_groups: int, num_labels: int = len(BINARY_LABELS)
) -> np.ndarray:
    """[G, L] float64: mean cross-entropy of each cell's examples in nats, NaN where a cell has none.

    `cells` is [N], each example's group * L + label.
    """
    sums = np.bincount(cells, weights=predictions.losses, minlength=num_groups * num_labels)
    counts = np.bincount(cells, minlength=num_groups * num_labels)
    means = np.full(len(sums), np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means.reshape(num_groups, num_labels)


def worst_group_accuracy(predictions: Predictions, groups: np.ndarray, num_groups: int) -> float:
    """The lowest accuracy of a group, between 0 and 1; `groups` is [N].

    Raises ValueError where a group has no examples.
    """
    return float(_group_means(predictions.is_correct, groups, num_groups).min())


def _group_means(values: np.ndarray, groups: np.ndarray, num_groups: int) -> np.ndarray:
    counts = _check_every_group(groups, num_groups)
    return np.bincount(groups, weights=values, minlength=num_groups) / counts


def _check_every_group(groups: np.ndarray, num_groups: int) -> np.ndarray:
    """[G] numbers of examples, none of them 0."""
    counts = np.bincount(groups, minlength=num_groups)
    if len(counts) != num_groups or not counts.all():
        raise ValueError(f"each of {num_groups} groups has examples, no other has; received counts {counts.tolist()}")
    return counts


def _row(name: str, rows: np.ndarray, predictions: Predictions, is_binary: bool) -> dict[str, str | int | float]:
    labels, predicted = predictions.labels[rows], predictions.predicted[rows]
    margins = predictions.margins[rows].astype(np.float64)
    log_odds = np.where(labels == 1, margins, -margins)  # as the probabilities order them, and never rounded to 1
    is_correct = predictions.is_correct[rows]
    of_several = len(np.unique(labels)) > 1
    return {
        "group": name,
        "num_examples": len(labels),
        "accuracy": float(is_correct.mean()),
        "loss": float(predictions.losses[rows].mean()),
        "fpr": _mean(~is_correct[labels == 0]) if is_binary else float("nan"),
        "fnr": _mean(~is_correct[labels == 1]) if is_binary else float("nan"),
        "auc": _auc(labels, log_odds) if is_binary and of_several else float("nan"),
        "macro_f1": _macro_f1(labels, predicted) if of_several else float("nan"),
        "margin": float(margins.mean()),
        "soft_accuracy": float(np.exp(-predictions.losses[rows]).mean()),
    }


def _auc(labels: np.ndarray, log_odds: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, log_odds))


def _macro_f1(labels: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import f1_score

    occurring = np.union1d(labels, predicted)
    return float(f1_score(labels, predicted, labels=occurring, average="macro", zero_division=0.0))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
