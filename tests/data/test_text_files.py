"""Text files: the line that is at fault, and the line at which each row begins."""

import gzip
from pathlib import Path

import pytest

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
