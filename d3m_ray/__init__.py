"""d3m_ray: debias a text corpus by training-data attribution, as one engine on Ray.

The functions `read_...` give what a sweep has stored as data frames; they are loaded when first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from d3m_ray.version import __version__

if TYPE_CHECKING:
    from d3m_ray.analysis.reading import (
        read_alignments,
        read_examples,
        read_fits,
        read_removals,
        read_scores,
        read_trials,
    )

__all__ = [
    "__version__",
    "read_alignments",
    "read_examples",
    "read_fits",
    "read_removals",
    "read_scores",
    "read_trials",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("d3m_ray.analysis.reading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
