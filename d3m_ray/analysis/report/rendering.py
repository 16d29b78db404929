"""Templates to HTML: everything from a store is escaped, and what no eye sees of it is spelt out."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from d3m_ray.analysis.report.visible import visible

FOLDER = Path(__file__).parent


def render(template: str, **values: Any) -> str:
    """The page that a template of this folder makes of the values, with the style and the script in it.

    Its content security policy lets this one script run, by its hash, and nothing load: no text can be a script.
    """
    script = (FOLDER / "table.js").read_text(encoding="utf-8")
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    found = _environment().get_template(template)
    return found.render(script=Markup(script), style=Markup(style), script_hash=digest, **values) + "\n"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
