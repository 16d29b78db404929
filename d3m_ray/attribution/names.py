"""The attribution methods by name, and what each reads and costs, without loading any of them."""

from collections.abc import Mapping

ATTRIBUTION_SETTINGS: Mapping[str, str | None] = {
    "trak": "trak",
    "ekfac": "ekfac",
    "traker": "trak",
    "kronfluence": "ekfac",
    "metagradient": "metagradient",
    "tracin": "metagradient",
    "gradcos": "trak",
    "bm25": None,
    "embedding": None,
    "loss": None,
    "random": None,
}
"""The attribution methods, and the field of `ExperimentConfig` that holds each one's settings."""


SCORE_NO_QUERY = ("metagradient", "tracin")
"""Attribution methods whose cost is per target: they score groups, or at once the weighed sum of all, but no query."""


READ_NO_QUERY = ("loss", "random")
"""Attribution methods whose scores are the same whatever is explained: no target changes them."""
