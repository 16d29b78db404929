"""The attribution methods by name: what each needs, and what enters its keys, without loading any of them.

Flags, keys and arms read this; `Method.load` loads what computes, with torch, when the first scores are made.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from d3m_ray.attribution.scorers import Scorers


@dataclass(frozen=True)
class Method:
    """All that is to be known of an attribution method before it computes anything."""

    name: str
    scores: str
    """What it scores by, in a line: the README and --help say it."""
    load: Callable[[], "Scorers"]
    settings: str | None = None
    """The field of `ExperimentConfig` that holds its settings; None where it has none."""
    reads: tuple[str, ...] = ()
    """Which of these settings its scores depend on: they alone enter its keys."""
    reads_queries: bool = True
    """Whether its scores depend on what is explained: of `loss` and `random` no target changes them."""
    scores_queries: bool = True
    """Whether it can score each query. Where the cost is per target it scores groups, or at once their weighed sum."""
    version: str = "1"
    """Raised when the same settings give other scores: older ones are not taken for new ones."""
    defaults: Any = None
    """Of a plug-in's method, an instance of its own settings, whose fields are flags."""


def flag_prefix(method: str) -> str:
    """What the flags of a plug-in's method begin with: `mine-` of --mine-sharpness."""
    return f"{method.replace('_', '-')}-"


def _in(module: str, name: str = "SCORERS") -> Callable[[], "Scorers"]:
    """What loads the scorers of this name from a module of this folder."""

    def load() -> "Scorers":
        found: Scorers = getattr(import_module(f"d3m_ray.attribution.{module}"), name)
        return found

    return load


_TRAK, _EKFAC = ("projection_dim", "damping", "projection_seed"), ("modules", "damping", "label_seed")

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("trak", "TRAK over every parameter", _in("trak.scores"), "trak", _TRAK, version="2"),
        Method("ekfac", "EK-FAC influence over every linear layer", _in("ekfac.scores"), "ekfac", _EKFAC, version="2"),
        Method("traker", "TRAK by the traker library", _in("libraries.traker"), "trak", _TRAK),
        Method("kronfluence", "EK-FAC by the kronfluence library", _in("libraries.kronfluence"), "ekfac", _EKFAC),
        Method(
            "metagradient",
            "exact derivative of the weighed groups' target through the training run",
            _in("metagradient.methods", "METAGRADIENT_SCORERS"),
            "metagradient",
            ("per_group",),
            scores_queries=False,
        ),
        Method(
            "tracin",
            "TracIn through AdamW on the same replay, without the second derivatives",
            _in("metagradient.methods", "TRACIN_SCORERS"),
            "metagradient",
            ("per_group",),
            scores_queries=False,
        ),
        Method(
            "gradcos",
            "cosine of the projected gradients of TRAK",
            _in("gradcos"),
            "trak",
            (_TRAK[0], _TRAK[2]),
            version="2",
        ),
        Method("bm25", "BM25 over token ids, signed by label agreement", _in("similarity", "BM25_SCORERS")),
        Method(
            "embedding",
            "cosine of last hidden states, signed by label agreement",
            _in("similarity", "EMBEDDING_SCORERS"),
        ),
        Method("loss", "the example's own loss", _in("controls", "LOSS_SCORERS"), reads_queries=False),
        Method("random", "random scores, as a control", _in("controls", "RANDOM_SCORERS"), reads_queries=False),
    )
}
"""By the names that --methods, the store and the figures give them."""
