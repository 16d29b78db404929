"""Content hashes: the names under which every result is stored."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY_LENGTH = 20  # hexadecimal digits, 80 bits: no collision among any number of fits anyone will run


def content_hash(*parts: str | bytes | Mapping[str, Any]) -> str:
    """Hash the parts in order; mappings go in as JSON with sorted keys.

    Each part is preceded by its length, so that ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Mapping):
            part = json.dumps(part, sort_keys=True, allow_nan=False)
        if isinstance(part, str):
            part = part.encode()
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()[:KEY_LENGTH]
