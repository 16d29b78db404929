"""A figure as files, PDF, PNG and SVG, and as a part of an HTML page; the same figure gives the same bytes."""

import hashlib
import io
import re
from html import escape
from weakref import WeakKeyDictionary

import matplotlib as mpl
from matplotlib.figure import Figure

from d3m_ray.analysis.figures.style import house_style

FORMATS = ("pdf", "png", "svg")
PNG_DPI = 160  # dots per inch, for screens and slides; print has the PDF
METADATA: dict[str, dict[str, None]] = {  # what matplotlib would write of the time and of itself
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}
ID = re.compile(r'\sid="([^"]+)"')
_SVGS: WeakKeyDictionary[Figure, bytes] = WeakKeyDictionary()
REFERENCE = re.compile(r'(?:href="#|url\(#)([^")]+)')


def figure_files(figure: Figure, name: str) -> dict[str, bytes]:
    """By file name, `name.pdf`, `.png` and `.svg`, its content."""
    return {f"{name}.{suffix}": _rendered(figure, suffix) for suffix in FORMATS}


def svg(figure: Figure, name: str = "", file: bytes | None = None) -> str:
    """The figure as an `<svg>` element for an HTML page: as wide as its place, with ids that no other figure has.

    Its title, for those who hear the page, is the figure's. Where its SVG `file` is at hand, it is not drawn again.
    """
    drawn = (file or _rendered(figure, "svg")).decode("utf-8")
    body = drawn[drawn.index(">", drawn.index("<svg")) + 1 :]
    view_box = re.search(r'viewBox="([^"]+)"', drawn)
    title = escape(" ".join(figure.get_suptitle().split()))
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
        f'viewBox="{view_box[1] if view_box else ""}" width="100%" class="figure"><title>{title}</title>'
    )
    return opening + _with_own_ids(re.sub(r"\s*<metadata>.*?</metadata>", "", body, flags=re.DOTALL), name)


def _rendered(figure: Figure, suffix: str) -> bytes:
    """The content of a file; an SVG, which a page shows too, is drawn once."""
    if suffix == "svg" and figure in _SVGS:
        return _SVGS[figure]
    buffer = io.BytesIO()
    with house_style(), mpl.rc_context({"svg.hashsalt": "d3m_ray"}):
        figure.savefig(buffer, format=suffix, dpi=PNG_DPI, metadata=METADATA[suffix])
    if suffix == "svg":
        _SVGS[figure] = buffer.getvalue()
    return buffer.getvalue()


def _with_own_ids(body: str, name: str) -> str:
    """Ids that nothing refers to left out, the others begun with a hash of the figure and its name."""
    prefix = f"f{hashlib.sha256((name + body).encode()).hexdigest()[:10]}"
    used = set(REFERENCE.findall(body))
    body = ID.sub(lambda match: f' id="{prefix}-{match[1]}"' if match[1] in used else "", body)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", body)
