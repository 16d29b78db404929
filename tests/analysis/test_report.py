"""The pages as documents: valid, self-contained, escaped, and complete in what they say is missing."""

import pytest

from d3m_ray.analysis.report.visible import shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, ünïcode, 文, 😀, tab\tand\nline", "plain text, ünïcode, 文, 😀, tab\tand\nline"),
        ("\x00a\x1b[31m\x7f\x85", "␀a␛[31m␡[U+0085]"),
        ("a\u202eb\u2066c\u200f", "a[U+202E]b[U+2066]c[U+200F]"),
        ("\ufffe\ufdd0\ud800\U0001ffff", "[U+FFFE][U+FDD0][U+D800][U+1FFFF]"),
        ("one\r\ntwo\rthree", "one\ntwo␍three"),
    ],
)
def test_what_no_eye_sees_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_long_text_says_how_much_more_there_is() -> None:
    assert shortened("a" * 10, 10) == "a" * 10
    assert shortened("a" * 1500, 10) == "aaaaaaaaaa… (1,490 more characters)"
