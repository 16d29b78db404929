"""Build steps of the documentation: equations become MathML, and a page that loads something from elsewhere is refused.

mkdocs calls the functions by their names.
"""

import html
import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LOADED = re.compile(r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Write the equations of a page, which arithmatex has marked, as MathML: every browser sets it, without a script.

    Raises PluginError where the converter does not know what an equation says: it would leave it out without a word.
    """

    def as_mathml(found: re.Match[str]) -> str:
        latex = html.unescape(found.group(2)).strip()
        display = "block" if found.group(1) == "div" else "inline"
        try:
            mathml = convert(latex, display=display)
            texts = " ".join(ElementTree.fromstring(mathml).itertext())
        except (ElementTree.ParseError, Exception) as error:
            raise PluginError(f"{page.file.src_path}: no MathML of the equation {latex!r}: {error}") from error
        if "\\" in texts:
            raise PluginError(f"{page.file.src_path}: a command that the converter does not know in {latex!r}")
        return f'<div class="equation">{mathml}</div>' if display == "block" else mathml

    return EQUATION.sub(as_mathml, content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Raise PluginError where a page loads a script, style, font or picture from another host."""
    if (found := LOADED.search(output)) is not None:
        raise PluginError(f"{page.file.src_path}: a page loads nothing from elsewhere; found {found.group()[:200]}")
    return output
