"""Content hashes: the names under which every result is stored."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

KEY_LENGTH = 20  # hexadecimal digits, 80 bits: no collision among any number of fits anyone will run


def content_hash(*parts: str | bytes | Mapping[str, Any] | Sequence[str]) -> str:
    """Hash the parts in order; mappings go in as JSON with sorted keys, sequences as their strings.

    Each part, and each string of a sequence, is preceded by its length, so that ("ab", "c") and ("a", "bc") differ
    whatever characters they hold.
    """
    digest = hashlib.sha256()
    for part in parts:
        encoded = _encoded(part)
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()[:KEY_LENGTH]


def _encoded(part: str | bytes | Mapping[str, Any] | Sequence[str]) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, Mapping):
        return json.dumps(part, sort_keys=True, allow_nan=False).encode()
    strings = [string.encode() for string in part]
    lengths = [len(strings), *map(len, strings)]
    return b"".join([*(length.to_bytes(8, "little") for length in lengths), *strings])
