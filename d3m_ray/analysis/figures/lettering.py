"""Names as a figure shows them: as they were typed, long ones shortened with a key, and only with glyphs that exist."""

import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import count

from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

FONT = "DejaVu Sans"  # comes with matplotlib
FALLBACKS = (  # for what it lacks, those that are installed
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Emoji", "Symbola", "Unifont"),
)
SUBSTITUTE = "□"
ELLIPSIS = "…"
LABEL_POINTS = 8.0
MAX_NAME_INCHES = 1.6  # a longer name is shortened
MAX_KEY_CHARACTERS = 400  # of a name in the key: a name as long as a text would bury the figure


@lru_cache(maxsize=1)
def font_families() -> tuple[str, ...]:
    """The fonts of every figure: matplotlib's own, then those installed for the characters that it lacks."""
    installed = {entry.name for entry in fontManager.ttflist}
    return (FONT, *(name for name in FALLBACKS if name in installed))


def legible(text: str) -> str:
    """The text with a box in place of each character that no font has; line ends and tabs are blanks."""
    drawable = _drawable_characters()
    return "".join(
        " " if character in "\n\r\t" else character if ord(character) in drawable else SUBSTITUTE for character in text
    )


def shortened(names: Iterable[str], max_inches: float = MAX_NAME_INCHES) -> dict[str, str]:
    """By name, what stands for it in a figure: no two alike, and none wider than `max_inches`.

    A name that is too long, or has boxes in it, ends in an ellipsis and a number, which `key_lines` explains.
    """
    labels = {name: legible(name) for name in names}
    too_long = {name for name, label in labels.items() if label != name or text_inches(label) > max_inches}
    taken = labels.keys() - too_long
    numbers = count(1)
    for name in (name for name in labels if name in too_long):
        label = _cut(labels[name], f"{ELLIPSIS} {next(numbers)}", max_inches)
        while label in taken:
            label = _cut(labels[name], f"{ELLIPSIS} {next(numbers)}", max_inches)
        labels[name] = label
    return labels


def key_lines(labels: Mapping[str, str]) -> list[str]:
    """One line for each label that is not the name: `a long na… 1: a long name of a group`."""
    return [f"{label}: {_spelled(name)}" for name, label in labels.items() if label != name]


@lru_cache(maxsize=20_000)
def text_inches(text: str, points: float = LABEL_POINTS, is_bold: bool = False) -> float:
    """Width of a line of text in inches."""
    if not text:
        return 0.0
    width, _, _ = _measuring_renderer().get_text_width_height_descent(text, _font(points, is_bold), False)
    return float(width) / 72


def wrapped(text: str, inches: float, points: float = LABEL_POINTS, is_bold: bool = False) -> list[str]:
    """The text in lines of at most that width, broken at blanks, or within a word that is longer than a line."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if text_inches(longer, points, is_bold) <= inches:
            lines[-1] = longer
            continue
        lines += [""] if lines[-1] else []
        while text_inches(word, points, is_bold) > inches:
            length = _fitting_length(word, inches, points, is_bold)
            lines[-1:] = [word[:length], ""]
            word = word[length:]
        lines[-1] = word
    return lines


def _fitting_length(text: str, inches: float, points: float = LABEL_POINTS, is_bold: bool = False) -> int:
    """How many characters of the text, at least one, fit that width."""
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if text_inches(text[:middle], points, is_bold) <= inches else (low, middle - 1)
    return low


def _cut(shown: str, ending: str, max_inches: float) -> str:
    room = max_inches - text_inches(ending)
    return f"{shown[: _fitting_length(shown, room)].rstrip()}{ending}" if shown else ending


def _spelled(name: str) -> str:
    """A name in full, up to a limit; one with boxes is told by its characters' codes too."""
    cut = name if len(name) <= MAX_KEY_CHARACTERS else f"{name[:MAX_KEY_CHARACTERS]}{ELLIPSIS} ({len(name)} characters)"
    boxed = [character for character in cut if legible(character) == SUBSTITUTE != character]
    codes = " ".join(f"U+{ord(character):04X}" for character in boxed[:20])
    return f"{legible(cut)} ({SUBSTITUTE}: {codes})" if boxed else legible(cut)


@lru_cache(maxsize=1)
def _drawable_characters() -> frozenset[int]:
    """The code points that one of the fonts has a glyph for, but for control and format characters."""
    known: set[int] = set()
    for family in font_families():
        known |= get_font(findfont(family)).get_charmap().keys()
    return frozenset(code for code in known if not unicodedata.category(chr(code)).startswith("C"))


@lru_cache(maxsize=1)
def _measuring_renderer() -> RendererAgg:
    return FigureCanvasAgg(Figure(dpi=72)).get_renderer()


@lru_cache(maxsize=32)
def _font(points: float, is_bold: bool) -> FontProperties:
    return FontProperties(family=list(font_families()), size=points, weight="bold" if is_bold else "normal")
