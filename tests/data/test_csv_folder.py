from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d3m_ray.data.checks import DataError
from d3m_ray.data.corpora import load_splits
from d3m_ray.data.csv_folder import load_csv_folder
from d3m_ray.data.hatexplain import Hatexplain
from d3m_ray.data.toxigen import Toxigen
from d3m_ray.errors import InputError

WriteFolder = Callable[..., Path]
HEADER = "text,label,group\n"


def test_the_rows_come_as_they_stand(write_csv_folder: WriteFolder) -> None:
    splits = load_csv_folder(write_csv_folder(), "kites")
    assert splits.name == "kites"
    assert splits.group_names == ("ant", "bee")
    assert splits.train.texts == ("a red kite", "a blue kite", "a red boat", "a blue boat")
    assert splits.train.example_ids.tolist() == ["train/0", "train/1", "train/2", "train/3"]
    np.testing.assert_array_equal(splits.train.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(splits.train.groups, [0, 0, 1, 1])
    assert splits.test.example_ids.tolist() == ["test/0", "test/1"]
    assert splits.num_dropped == {}
    assert splits.harmful_ids == frozenset()


@pytest.mark.parametrize(("options", "name"), [(Toxigen(), "toxigen"), (Hatexplain(), "hatexplain")])
def test_a_csv_folder_is_taken_whatever_the_corpus(write_csv_folder: WriteFolder, options: Any, name: str) -> None:
    splits = load_splits(options, write_csv_folder())
    assert splits.name == name
    assert len(splits.train) == 4


def test_a_mark_at_the_beginning_other_columns_and_odd_texts_are_read(write_csv_folder: WriteFolder) -> None:
    content = 'id,group,label,text\n1,ant,0,"a kite, ""red""\nand wide"\n\n2, bee ,1,NA\n3,bee,0,null\n'
    splits = load_csv_folder(write_csv_folder(train=b"\xef\xbb\xbf" + content.encode()), "kites")
    assert splits.train.texts == ('a kite, "red"\nand wide', "NA", "null")
    assert splits.train.example_ids.tolist() == ["train/0", "train/1", "train/2"]
    assert splits.group_names == ("ant", "bee")


def test_the_content_decides_the_hash(write_csv_folder: WriteFolder) -> None:
    first = load_csv_folder(write_csv_folder(), "kites").content_hash()
    assert load_csv_folder(write_csv_folder(), "other").content_hash() == first
    changed = load_csv_folder(write_csv_folder(val=HEADER + "one kite,0,ant\nhalf a boat,1,bee\n"), "kites")
    assert changed.content_hash() != first


def test_a_repeated_row_is_dropped_and_counted(write_csv_folder: WriteFolder) -> None:
    content = HEADER + "two kites,1,ant\ntwo kites,1,ant\ntwo kites,1,bee\n"
    splits = load_csv_folder(write_csv_folder(test=content), "kites")
    assert splits.test.example_ids.tolist() == ["test/0", "test/2"], "once per group that it targets"
    assert splits.num_dropped == {"test row repeats another": 1}


TRAIN = HEADER + "a red kite,0,ant\na red boat,1,bee\n"
BAD = {
    "missing file": (None, ["holds train.csv, val.csv and test.csv", "train.csv missing"]),
    "empty": (b"", ["train.csv", "is empty"]),
    "white space only": (b"\n \n", ["train.csv", "is empty"]),
    "header only": (HEADER, ["train.csv", "holds none"]),
    "missing column": ("text,label\na kite,0\n", ["train.csv, header", "group missing", "received text, label"]),
    "semicolons": ("text;label;group\na kite;0;ant\n", ["train.csv, header", "the separator is a comma"]),
    "unknown label": (TRAIN + "a boat,toxic,bee\n", ["train.csv, line 4", "a label is 0 or 1", "received 'toxic'"]),
    "label of two": (TRAIN + "a boat,2,bee\na,3,bee\n", ["line 4", "received '2'", "(1 more rows like it)"]),
    "blank text": (TRAIN + "   ,1,bee\n", ["train.csv, line 4", "has a text"]),
    "blank group": (TRAIN + "a boat,1,\n", ["train.csv, line 4", "has a group"]),
    "line after a text of two lines": (HEADER + '"a\nb",0,ant\n\nc,x,bee\n', ["train.csv, line 5", "received 'x'"]),
    "unquoted comma": (TRAIN + "a boat, red,1,bee\n", ["train.csv, line 4", "4", "double quotes"]),
    "open quote": (TRAIN + '"a boat,1,bee\n', ["train.csv, line 4", "quotes"]),
    "latin-1": (TRAIN.encode() + "a café,1,bee\n".encode("latin-1"), ["train.csv, line 4", "UTF-8", "0xe9"]),
    "utf-16": (TRAIN.encode("utf-16"), ["train.csv, line 1", "UTF-8"]),
    "contradiction": (TRAIN + "a red boat,0,bee\n", ["train.csv, line 4", "one label per group"]),
    "text also in val": (TRAIN + "One  KITE,1,bee\n", ["train.csv, line 4", "val.csv, line 2", "remove it from train"]),
    "group without val": (TRAIN + "a cap,1,cat\n", ["val has no example of ['cat']"]),
    "group without train": (HEADER + "a kite,0,ant\n", ["val has ['bee']", "train has ['ant']"]),
    "reserved group": (TRAIN + "a cap,1,worst\n", ["not called all, worst", "['worst']"]),
    "group like a cell": (TRAIN + "a cap,1,bee/1\n", ["['bee/1']", "rename"]),
}


@pytest.mark.parametrize(("content", "parts"), BAD.values(), ids=BAD)
def test_an_error_names_file_row_and_fix(
    write_csv_folder: WriteFolder, content: str | bytes | None, parts: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        load_csv_folder(write_csv_folder(train=content), "kites")
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_empty_group_in_val_or_test_is_refused(write_csv_folder: WriteFolder, split: str) -> None:
    with pytest.raises(DataError, match=rf"{split} has no example of \['bee'\]"):
        load_csv_folder(write_csv_folder(**{split: HEADER + "three kites,0,ant\n"}), "kites")


def test_a_text_in_val_and_test_is_refused(write_csv_folder: WriteFolder) -> None:
    with pytest.raises(DataError, match=r"val\.csv, line 3: a text stands in one split only.*test\.csv, line 2"):
        load_csv_folder(write_csv_folder(val=HEADER + "one boat,1,bee\nTwo kites,0,ant\n"), "kites")


def test_a_source_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert issubclass(DataError, InputError)
    with pytest.raises(DataError, match="--data is a folder"):
        load_splits(Toxigen(), tmp_path / "absent")


@pytest.mark.parametrize(
    ("options", "corpus", "sizes"),
    [
        (Toxigen(), "toxigen", (7786, 1380, 5870)),
        (Hatexplain(), "hatexplain", (1232, 312, 144)),
    ],
    ids=["toxigen", "hatexplain"],
)
def test_the_prepared_corpora_are_read(test_data_dir: Path, options: Any, corpus: str, sizes: tuple[int, ...]) -> None:
    splits = load_splits(options, test_data_dir / corpus / "prepared")
    assert tuple(len(examples) for examples in splits.by_name().values()) == sizes
    assert splits.num_dropped == {}
