"""Metrics against sklearn and against values worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import MetricFrame, false_negative_rate, false_positive_rate
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, roc_auc_score

from d3m_ray.metrics.groups import cell_losses, group_losses, group_metrics, worst_group_accuracy
from d3m_ray.records import Examples, Predictions


def make_examples(labels: list[int], groups: list[int]) -> Examples:
    ids = [f"id{i}" for i in range(len(labels))]
    return Examples("test", np.array(ids), tuple(f"text {i}" for i in ids), np.array(labels), np.array(groups))


def predict(logits: np.ndarray, labels: np.ndarray) -> Predictions:
    """Predictions of a model whose logit of label 1 over label 0 is given."""
    return of_two_labels(labels, np.where(labels == 1, logits, -logits), 1 / (1 + np.exp(-logits)))


def of_two_labels(labels: np.ndarray, margins: np.ndarray, probabilities: np.ndarray) -> Predictions:
    predicted = np.where(margins > 0, labels, 1 - labels)
    return Predictions(labels, margins.astype(np.float32), predicted, probabilities.astype(np.float32))


@pytest.fixture
def random_case() -> tuple[Predictions, Examples]:
    generator = np.random.default_rng(0)
    labels, groups = generator.integers(0, 2, 300), np.repeat([0, 1, 2], [150, 100, 50])
    examples = make_examples(labels.tolist(), groups.tolist())
    return predict(generator.normal(size=300) + labels - 0.3 * groups, examples.labels), examples


def test_every_metric_agrees_with_sklearn(random_case: tuple[Predictions, Examples]) -> None:
    predictions, examples = random_case
    table = group_metrics(predictions, examples, ["ant", "bee", "cat"]).set_index("group")
    for group, name in [(0, "ant"), (1, "bee"), (2, "cat"), (None, "all")]:
        rows = np.ones(300, dtype=bool) if group is None else examples.groups == group
        labels, probabilities = examples.labels[rows], predictions.probabilities[rows].astype(np.float64)
        true_0, false_1, false_0, true_1 = confusion_matrix(labels, probabilities > 0.5).ravel()
        expected = {
            "num_examples": rows.sum(),
            "accuracy": accuracy_score(labels, probabilities > 0.5),
            "loss": log_loss(labels, probabilities),
            "fpr": false_1 / (false_1 + true_0),
            "fnr": false_0 / (false_0 + true_1),
            "auc": roc_auc_score(labels, probabilities),
            "macro_f1": f1_score(labels, probabilities > 0.5, average="macro"),
            "margin": predictions.margins[rows].mean(),
            "soft_accuracy": np.where(labels == 1, probabilities, 1 - probabilities).mean(),
        }
        np.testing.assert_allclose(table.loc[name, list(expected)].astype(float), list(expected.values()), rtol=1e-6)


def test_rows_worked_out_by_hand() -> None:
    examples = make_examples(labels=[0, 0, 1, 1, 1, 1], groups=[0, 0, 0, 1, 1, 1])
    margins = np.array([1.0, -1.0, 2.0, 0.0, -3.0, 1.0], dtype=np.float32)
    probabilities = np.array([0.3, 0.7, 0.9, 0.5, 0.05, 0.7], dtype=np.float32)
    predictions = of_two_labels(examples.labels, margins, probabilities)
    table = group_metrics(predictions, examples, ["ant", "bee"]).set_index("group")

    assert table.index.tolist() == ["ant", "bee", "ant/0", "ant/1", "bee/1", "all", "worst", "worst_cell"]
    assert table["num_examples"].tolist() == [3, 3, 2, 1, 3, 6, 3, 3]
    np.testing.assert_allclose(table["accuracy"], [2 / 3, 1 / 3, 1 / 2, 1, 1 / 3, 1 / 2, 1 / 3, 1 / 3])
    np.testing.assert_allclose(table["fpr"], [1 / 2, np.nan, 1 / 2, np.nan, np.nan, 1 / 2, np.nan, np.nan])
    np.testing.assert_allclose(table["fnr"], [0, 2 / 3, np.nan, 0, 2 / 3, 1 / 2, 2 / 3, 2 / 3])
    # One positive above both negatives; over all, 4 of the 8 pairs are in order and one is a tie.
    np.testing.assert_allclose(table["auc"], [1, np.nan, np.nan, np.nan, np.nan, 4.5 / 8, np.nan, np.nan])
    np.testing.assert_allclose(table.loc["bee", "loss"], np.log1p(np.exp([0.0, 3.0, -1.0])).mean())
    # Over all: label 0 has 1 of 2 found among 3 told, label 1 has 2 of 4 among 3 told. A cell has one label.
    np.testing.assert_allclose(table.loc["all", "macro_f1"], (2 / 5 + 4 / 7) / 2)
    assert table.loc[["ant/0", "ant/1", "bee/1", "bee"], "macro_f1"].isna().all()


def test_three_labels_agree_with_sklearn_and_have_no_rates_of_two() -> None:
    generator = np.random.default_rng(1)
    labels, groups = generator.integers(0, 3, 200), np.repeat([0, 1], 100)
    logits = generator.normal(size=(200, 3)) + 0.5 * np.eye(3)[labels]
    others = np.where(np.eye(3, dtype=bool)[labels], -np.inf, logits)
    margins = logits[np.arange(200), labels] - np.log(np.exp(others).sum(axis=1))
    unknown = np.full(200, np.nan, dtype=np.float32)
    predictions = Predictions(labels, margins.astype(np.float32), logits.argmax(axis=1), unknown)
    examples = make_examples(labels.tolist(), groups.tolist())
    table = group_metrics(predictions, examples, ["ant", "bee"], ["no", "maybe", "yes"]).set_index("group")

    cells = [f"{group}/{label}" for group in ("ant", "bee") for label in ("no", "maybe", "yes")]
    assert table.index.tolist() == ["ant", "bee", *cells, "all", "worst", "worst_cell"]
    assert table[["fpr", "fnr", "auc"]].isna().all(axis=None)
    for group, name in enumerate(["ant", "bee"]):
        rows = groups == group
        predicted = logits[rows].argmax(axis=1)
        assert table.loc[name, "accuracy"] == pytest.approx(accuracy_score(labels[rows], predicted))
        assert table.loc[name, "macro_f1"] == pytest.approx(f1_score(labels[rows], predicted, average="macro"))
        probabilities = np.exp(logits[rows]) / np.exp(logits[rows]).sum(axis=1, keepdims=True)
        assert table.loc[name, "loss"] == pytest.approx(log_loss(labels[rows], probabilities, labels=[0, 1, 2]))
    assert (margins < 0)[predictions.is_correct].any(), "of three labels, the largest may have less than half"


def test_auc_does_not_end_where_probabilities_round_to_one() -> None:
    examples = make_examples(labels=[0, 0, 1, 1], groups=[0, 0, 0, 0])
    logits = np.array([20.0, 22.0, 25.0, 30.0])
    for labels, expected in (([0, 0, 1, 1], 1.0), ([1, 1, 0, 0], 0.0)):
        examples = make_examples(labels=labels, groups=[0, 0, 0, 0])
        assert group_metrics(predict(logits, examples.labels), examples, ["ant"])["auc"].iloc[0] == expected


def test_a_margin_of_zero_is_wrong() -> None:
    examples = make_examples(labels=[0, 1], groups=[0, 0])
    even = of_two_labels(examples.labels, np.zeros(2), np.full(2, 0.5))
    row = group_metrics(even, examples, ["ant"]).iloc[0]
    assert (row["accuracy"], row["fpr"], row["fnr"], row["auc"]) == (0, 1, 1, 0.5)
    assert worst_group_accuracy(even, examples.groups, 1) == 0


def test_worst_rows_repeat_the_worst_identity_and_cell(random_case: tuple[Predictions, Examples]) -> None:
    table = group_metrics(*random_case, ["ant", "bee", "cat"]).set_index("group")
    identities, cells = table.loc[["ant", "bee", "cat"]], table.filter(like="/", axis="index")
    assert len(cells) == 6
    for worst, candidates in [("worst", identities), ("worst_cell", cells)]:
        pd.testing.assert_series_equal(
            table.loc[worst], candidates.loc[candidates["accuracy"].idxmin()], check_names=False
        )
    predictions, examples = random_case
    assert worst_group_accuracy(predictions, examples.groups, 3) == pytest.approx(table.loc["worst", "accuracy"])


def test_group_losses_are_the_tables_losses(random_case: tuple[Predictions, Examples]) -> None:
    table = group_metrics(*random_case, ["ant", "bee", "cat"])
    losses = group_losses(random_case[0], random_case[1].groups, 3)
    assert losses.dtype == np.float64
    np.testing.assert_allclose(losses, table["loss"][:3])


def test_cell_losses_are_the_tables_losses_and_nan_where_there_is_none() -> None:
    examples = make_examples(labels=[0, 1, 1, 0], groups=[0, 0, 0, 2])
    predictions = predict(np.array([1.0, 2.0, 0.5, 3.0]), examples.labels)
    found = cell_losses(predictions, examples.groups * 2 + examples.labels, 3)
    losses = predictions.losses
    expected = [[losses[0], (losses[1] + losses[2]) / 2], [np.nan, np.nan], [losses[3], np.nan]]
    np.testing.assert_allclose(found, expected)


def test_a_group_without_examples_is_refused() -> None:
    examples = make_examples(labels=[0, 1], groups=[0, 2])
    predictions = predict(np.array([1.0, 2.0]), examples.labels)
    for num_groups in (3, 2):
        with pytest.raises(ValueError, match=r"received counts \[1, 0, 1\]"):
            group_losses(predictions, examples.groups, num_groups)
    with pytest.raises(ValueError, match="groups has examples"):
        group_metrics(predictions, examples, ["ant", "bee", "cat"])


@pytest.mark.parametrize("names", [["worst"], ["all"], ["worst_cell"]])
def test_a_reserved_group_name_is_refused(names: list[str]) -> None:
    examples = make_examples(labels=[0, 1], groups=[0, 0])
    with pytest.raises(ValueError, match="group names are unique"):
        group_metrics(predict(np.array([1.0, 2.0]), examples.labels), examples, names)


def test_groups_and_their_worst_are_those_of_fairlearn() -> None:
    rng = np.random.default_rng(3)
    labels, groups = rng.integers(0, 2, 400), rng.integers(0, 5, 400)
    margins = rng.normal(0.8, 1, 400).astype(np.float32)
    predicted = np.where(margins > 0, labels, 1 - labels)
    probabilities = 1 / (1 + np.exp(np.where(labels == 1, -margins, margins)))
    examples = Examples("test", np.array([f"test/{row}" for row in range(400)]), ("a text",) * 400, labels, groups)
    predictions = Predictions(labels, margins, predicted, probabilities.astype(np.float32))
    names = np.array(["ant", "bee", "cat", "dog", "eel"])
    table = group_metrics(predictions, examples, names.tolist()).set_index("group")
    theirs = MetricFrame(
        metrics={"accuracy": accuracy_score, "fpr": false_positive_rate, "fnr": false_negative_rate},
        y_true=labels,
        y_pred=predicted,
        sensitive_features=names[groups],
    )
    pd.testing.assert_frame_equal(
        table.loc[names, ["accuracy", "fpr", "fnr"]], theirs.by_group.astype("float64"), check_names=False
    )
    assert table.loc["worst", "accuracy"] == pytest.approx(theirs.group_min()["accuracy"])
    assert table.loc["all", "accuracy"] == pytest.approx(theirs.overall["accuracy"])
