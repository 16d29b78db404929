"""Text files: the line that is at fault, and the line at which each row begins."""

import gzip
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d3m_ray.data.checks import DataError
from d3m_ray.data.text_files import read_csv, read_json_lines


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('a,b\n1,2\n"3,4\n5,6\n', 3),
        ('a,b\n1,2\n3,"4\n5,6\n7,8\n', 3),
        ('a,b\n"1","2\n\n3"\n"4,5\n"6",7\n', 5),
        ('a,b\n"1\n2","3,4\n5,6\n', 3),
        ('a,b\n"say ""so""\n\nand ""on""","3,4\n5,6\n', 4),
        ('a,b\n"1" ,2\n"3",4\n', 2),
        ('a,b\n1,2\n3,"so" he said\n"x","y"\n', 3),
        ('"a,b\n1,2\n', 1),
        ('a,b\r\n1,2\r\n"3,4\r\n5,6\r\n', 3),
    ],
)
def test_a_quote_that_does_not_end_is_told_with_the_line_where_it_begins(
    content: str, line: int, tmp_path: Path
) -> None:
    for separator in (",", "\t"):
        path = tmp_path / "a.csv"
        path.write_bytes(content.replace(",", separator).encode())
        with pytest.raises(DataError, match=rf"a\.csv, line {line}: a CSV file quotes a whole field"):
            read_csv(path, ("a", "b"), separator)


def test_rows_begin_where_they_begin(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b'a,b\n"1\n\n1",2\n\n3,"4 ""so"""\n'))
    table = read_csv(path, ("b", "a"))
    assert table.frame.to_dict("list") == {"b": ["2", '4 "so"'], "a": ["1\n\n1", "3"]}
    assert [table.place(row).rpartition(", ")[2] for row in (0, 1)] == ["line 2", "line 6"]
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"b": [2]}\n')
    table = read_json_lines(path, ("a", "b"))
    assert table.frame.to_numpy().tolist() == [[1, None], [None, [2]]]
    assert table.place(1).endswith("a.jsonl, line 3")


WALKS = [f"walk {i},{'no' if i % 2 else 'yes'},{'ab'[i // 2 % 2]}" for i in range(12)]


def table_of(rows: list[str], separator: str, order: tuple[int, ...] = (0, 1, 2)) -> str:
    """The rows under a header, their columns in another order."""
    every = [line.split(",") for line in ("text,label,group", *rows)]
    return "".join(separator.join(row[place] for place in order) + "\n" for row in every)


@pytest.mark.parametrize("separator", [",", "\t"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
@pytest.mark.parametrize(("first", "last"), [(0, 1), (3, 4), (3, 7)])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_quotes_that_are_part_of_texts_swallow_no_rows(
    separator: str, order: tuple[int, ...], first: int, last: int, line_end: str, tmp_path: Path
) -> None:
    """A file written without quoting, in which one text begins with a quote and a later one ends in one."""
    rows = WALKS.copy()
    rows[first] = '"a walk by,no,b'
    rows[last] = 'the sea",yes,a'
    path = tmp_path / "a.csv"
    path.write_bytes(table_of(rows, separator, order).replace("\n", line_end).encode())
    num_lines = last - first + 1
    with pytest.raises(
        DataError, match=rf"a\.csv, line {first + 2}: .* {num_lines} lines that look like rows.*double the \""
    ):
        read_csv(path, ("text", "label", "group"), separator)


@pytest.mark.parametrize(
    "text",
    [
        "Well, a walk, and tea\nby the sea",
        "Well, a, b\n\na walk, and, yes\nby the sea",
        "a walk\nwas it long? no,a\n",
        "one\ntwo, and so on, and so on\nthree",
    ],
)
def test_a_text_of_lines_and_commas_is_one_text(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["text,label,group", *WALKS, f'"{text}",no,b', '"one\ntwo",no,a']) + "\n")
    table = read_csv(path, ("text", "label", "group"))
    assert table.frame["text"].tolist()[-2:] == [text, "one\ntwo"]
    assert len(table.frame) == 14


def test_a_tab_inside_lines_of_a_tsv_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(table_of(WALKS, "\t") + '"one\ttwo\nthree"\tno\tb\n')
    with pytest.raises(DataError, match=r"a\.tsv, line 14: a quoted field"):
        read_csv(path, ("text",), "\t")


def test_a_field_may_be_as_long_as_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"text,label\n{'walk ' * 4_000_000},no\n")
    assert len(read_csv(path, ("text", "label")).frame["text"][0]) == 20_000_000


# No line ends alone and no lone surrogates, which no file of UTF-8 holds; quotes, blanks, tabs and commas at will.
FIELDS = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=12)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(FIELDS, FIELDS.map(lambda text: text + "."), FIELDS), min_size=1, max_size=6))
def test_what_pandas_writes_as_csv_comes_back_to_the_letter(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    path = tmp_path / "written.csv"
    written = pd.DataFrame(rows, columns=["a", "b", "c"])
    path.write_bytes(written.to_csv(index=False, lineterminator="\r\n", quoting=1).encode())
    assert read_csv(path, ("a", "b", "c")).frame.to_dict("list") == written.to_dict("list")
