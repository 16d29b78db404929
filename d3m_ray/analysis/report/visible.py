"""Names and texts of users as a page can hold them: what no eye sees, and what turns the line around, is spelt out."""

import re

_C0_PICTURES = 0x2400  # the Unicode block that has a picture of each C0 control
_DELETE, _DELETE_PICTURE = 0x7F, "\u2421"
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, overrides and isolates of the direction of writing
    "\u2028\u2029\ufeff\ufff9-\ufffb\ufdd0-\ufdef\ufffe\uffff\ud800-\udfff"
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0x10000, 0x110000, 0x10000))
    + "]"
)


def visible(text: str) -> str:
    """The text with each control, direction mark, noncharacter and lone surrogate replaced by a sign that shows it.

    A C0 control becomes its picture, any other one its number: `[U+202E]`. Tabs and line feeds stay.
    """
    return _HIDDEN.sub(_sign, text.replace("\r\n", "\n"))


def shortened(text: str, max_characters: int) -> str:
    """The text, or so many of its first characters and how many more there are."""
    more = len(text) - max_characters
    return text if more <= 0 else f"{text[:max_characters]}… ({more:,} more characters)"


def _sign(found: re.Match[str]) -> str:
    code = ord(found.group())
    if code < ord(" "):
        return chr(_C0_PICTURES + code)
    return _DELETE_PICTURE if code == _DELETE else f"[U+{code:04X}]"
