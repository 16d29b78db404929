"""Corpora that differ have different hashes; vocabularies of groups and labels are checked."""

import dataclasses

import numpy as np
import pytest

from d3m_ray.records import Examples, Splits


def examples(split: str, texts: list[str], labels: list[int]) -> Examples:
    ids = [f"{split}/{row}" for row in range(len(texts))]
    return Examples(split, np.array(ids), tuple(texts), np.array(labels), np.zeros(len(texts)))


def made_splits(train: list[str], **fields: object) -> Splits:
    others = {"val": examples("val", ["v"], [0]), "test": examples("test", ["t"], [1])}
    labels = [row % 2 for row in range(len(train))]
    return Splits("made", ("all of them",), examples("train", train, labels), **others, **fields)


def test_texts_that_differ_by_where_a_nul_stands_have_different_hashes() -> None:
    hashes = {made_splits(texts).content_hash() for texts in (["a\0b", "c"], ["a", "b\0c"], ["a\0b\0c", ""])}
    assert len(hashes) == 3


def test_the_names_of_groups_and_labels_enter_the_hash() -> None:
    plain = made_splits(["a", "b"])
    for change in ({"group_names": ("others",)}, {"label_names": ("no", "yes")}, {"label_names": ("0", "1", "2")}):
        assert dataclasses.replace(plain, **change).content_hash() != plain.content_hash()


@pytest.mark.parametrize("names", [("0",), ("no", "no"), ()])
def test_a_corpus_has_two_labels_at_least(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="at least two labels of different names"):
        made_splits(["a", "b"], label_names=names)


def test_a_label_outside_the_vocabulary_is_refused() -> None:
    three = examples("train", ["a", "b", "c"], [0, 1, 2])
    with pytest.raises(ValueError, match="train holds a label outside the vocabulary of 2"):
        dataclasses.replace(made_splits(["a", "b"]), train=three)
    with pytest.raises(ValueError, match="labels count from 0"):
        examples("train", ["a"], [-1])
