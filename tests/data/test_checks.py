"""The rules of every corpus, whatever it was read from."""

import dataclasses

import pandas as pd
import pytest

from d3m_ray.data.checks import DataError, Table, check_splits, make_splits, reading_key
from d3m_ray.data.values import texts_of, words_of


def frames(**columns: object) -> dict[str, pd.DataFrame]:
    """A corpus of two groups in which train has the given columns in place of its own."""
    made = {}
    for split in ("train", "val", "test"):
        rows = [(f"{split} {group} {label}", label, group) for group in ("ant", "bee") for label in (0, 1)]
        frame = pd.DataFrame(rows, columns=["text", "label", "group"])
        made[split] = frame.assign(example_id=[f"{split}/{row}" for row in range(4)])
    made["train"] = made["train"].assign(**columns)
    return made


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a", "b\0", "c", "d"]}, "train example 'train/1': its text .* without NUL, received character 0x0"),
        (
            {"text": pd.Series(["a", "b", "\ud83d!", "d"], dtype=object)},
            "train example 'train/2': its text .* received character 0xd83d",
        ),
        ({"group": ["ant", "ant", "bee\0", "bee"]}, "'train/2': its group"),
        ({"label": [0, 0, 0, 0]}, "train of made has examples of every label, it has none of 1"),
        ({"group": ["Worst", "ant", "bee", "bee"]}, r"received \['Worst'\]; rename the group"),
        ({"group": ["ALL\u200b", "ant", "bee", "bee"]}, r"a group is not called all"),
        ({"group": ["Ant/0", "ant", "bee", "bee"]}, r"received \['Ant/0'\]; rename the group"),
        ({"group": ["ant\u200b", "ant", "bee", "bee"]}, r"two groups .* received 'ant' and 'ant\\u200b'"),
        ({"group": ["\uff41nt", "ant", "bee", "bee"]}, r"two groups .* received 'ant' and '\\uff41nt'"),
        ({"group": ["1", "true", "ant", "bee"]}, r"the groups .* received \['1', 'true'\].* write all in one way"),
        ({"group": ["worst", "ant", "bee", "bee"]}, r"received \['worst'\]; rename the group"),
        ({"group": ["ant/0", "ant", "bee", "bee"]}, r"received \['ant/0'\]; rename the group"),
        ({"group": ["ant/wing", "ant", "bee", "bee"]}, r"received \['ant/wing'\]; rename the group"),
    ],
)
def test_a_broken_rule_is_told_with_its_place(columns: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits("made", frames(**columns))


def test_train_texts_of_two_groups_are_told() -> None:
    (note,) = make_splits("made", frames(text=["a", "b", "A ", "c"])).notes
    assert note.startswith("1 train rows repeat a text in another group")
    assert make_splits("made", frames()).notes == ()


def test_labels_have_the_names_given() -> None:
    splits = make_splits("made", frames(label=[0, 1, 2, 0]), label_names=("no", "maybe", "yes"))
    assert splits.label_names == ("no", "maybe", "yes")
    assert splits.num_labels == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("A  walk\n", "a walk"),
        ("caf\u00e9", "CAFE\u0301"),
        ("a\u00a0walk", "a walk"),
        ("\ufeffa\u200bb", "AB"),
        ("a\u00adb\ufe0f", "ab"),
        ("\uff11\u2460", "11"),
        ("stra\u00dfe", "STRASSE"),
        ("e\u200d\u0301", "\u00c9"),
        ("\u0345\u03b1", "\u0399\u0391"),
    ],
)
def test_texts_that_read_alike_have_one_key(one: str, other: str) -> None:
    assert reading_key(one) == reading_key(other) != ""


def test_texts_that_read_otherwise_have_keys_of_their_own() -> None:
    texts = ["a b", "ab", "a", "\u00e0", "a!", "\u0430"]
    assert len({reading_key(text) for text in texts}) == len(texts)


def test_a_text_of_characters_that_are_not_seen_is_blank() -> None:
    table = Table("a", pd.DataFrame({"text": ["\u200b \ufeff", "a\u200b", " "]}))
    assert texts_of(table, "text").tolist() == [None, "a\u200b", None]
    assert words_of(table, "text").tolist() == [None, "a\u200b", None]


def test_splits_that_were_made_otherwise_are_held_to_the_same_rules() -> None:
    made = make_splits("made", frames())
    assert check_splits(made) is made
    with pytest.raises(DataError, match=r"the name of a corpus is of letters, digits, .* received 'a/b'"):
        check_splits(dataclasses.replace(made, name="a/b"))
    with pytest.raises(DataError, match=r"a group is not called .*received .*all"):
        check_splits(dataclasses.replace(made, group_names=("all", "bee")))
