"""The rules of every corpus, whatever it was read from."""

import pandas as pd
import pytest

from d3m_ray.data.checks import DataError, make_splits


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
