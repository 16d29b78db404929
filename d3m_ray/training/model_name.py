"""The name under which the store knows a model that comes from a folder."""

import re
from pathlib import Path

# Names that trainers give, and that say nothing of the model within.
GENERIC = re.compile(
    r"(model|checkpoint|weight|output|encoder)s?([-_]?\d+)?|(best|last|final)([-_](model|checkpoint))?"
)
HUB_CACHE = re.compile(r"snapshots|[0-9a-f]{40}")  # below the folder that the hub's cache names after the model
NUM_DIGITS = 8  # of a hash, in hexadecimal: one in four billion


def name_of_folder(folder: Path, content_hash: str) -> str:
    """The folder's own name, those above it before it where it is generic, and the first digits of the content hash.

    Two folders called `model` are two models in the store, and a folder that was trained on is another than before.
    """
    names: list[str] = []
    for part in reversed(folder.resolve().parts[1:]):
        if HUB_CACHE.fullmatch(part):
            continue
        names.insert(0, part)
        if not GENERIC.fullmatch(part.lower()):
            break
    return "-".join([*names, content_hash[:NUM_DIGITS]])
