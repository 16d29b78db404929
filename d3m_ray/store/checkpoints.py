"""The weights of a fit as a safetensors file that knows its own checksum, and back."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load, save

from d3m_ray.store.provenance import software
from d3m_ray.store.results import checked_name

CHECKPOINTS = "checkpoints"  # the folder
CHECKSUM, FIT_KEY = "sha256", "fit_key"  # entries of the header's metadata
LENGTH_BYTES = 8  # of the header, before it, little-endian


def checkpoint_file(fit_key: str) -> str:
    """The path of a fit's weights, below the root of the store."""
    return f"{CHECKPOINTS}/{checked_name(fit_key)}.safetensors"


def checkpoint_to_bytes(weights: Mapping[str, np.ndarray], fit_key: str) -> bytes:
    """The weights in safetensors format; the header's metadata hold their checksum, their fit, and what wrote them.

    Arrays that share memory, as tied weights do, are written once each.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
    written_by = {name: value for name, value in software().items() if isinstance(value, str)}  # texts alone fit in
    return save(arrays, metadata={CHECKSUM: _checksum(arrays), FIT_KEY: fit_key, **written_by})


def checkpoint_from_bytes(buffer: pa.Buffer, fit_key: str) -> dict[str, np.ndarray]:
    """The weights by name. Raises ValueError where the file is truncated, of another fit, or not what was written."""
    data = buffer.to_pybytes()
    try:
        weights = load(data)
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(str(error)) from error
    header_end = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES], "little")
    metadata = json.loads(data[LENGTH_BYTES:header_end]).get("__metadata__", {})
    if metadata.get(FIT_KEY, fit_key) != fit_key:
        raise ValueError(f"its weights are of the fit {metadata[FIT_KEY]}")
    expected = metadata.get(CHECKSUM)
    if expected is not None and expected != _checksum(weights):
        raise ValueError("its weights do not have the checksum of its header")
    return weights


def _checksum(weights: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(f"{name} {weights[name].dtype} {weights[name].shape}".encode())
        digest.update(weights[name].data)
    return digest.hexdigest()
