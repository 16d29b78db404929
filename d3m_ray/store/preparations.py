"""What preparing a model on a corpus came to, as a JSON document that is believed only where it is whole."""

import json
from dataclasses import asdict, dataclass

import pyarrow as pa

from d3m_ray.keys import content_hash
from d3m_ray.training.settings import Precision


@dataclass(frozen=True)
class Preparation:
    """What an experiment's keys, record and messages have of its model and of the machine that prepared it."""

    model: str
    """The name under which the store knows the model."""
    model_hash: str
    """Hash of the whole model and its tokenizer."""
    warnings: tuple[str, ...]
    """What a person should know of the model on the corpus, a sentence each."""
    precision: Precision
    """What the precision asked for comes to: float32 or bfloat16."""
    device_name: str
    """What the machine computes on, in words."""


def preparation_to_json(key: str, preparation: Preparation) -> bytes:
    """The document: the fields, the key, and a checksum of the fields."""
    return json.dumps({**asdict(preparation), "key": key, "checksum": _checksum(preparation)}, indent=1).encode()


def preparation_from_json(key: str, data: pa.Buffer) -> Preparation:
    """What was written under this key. Raises ValueError where the document is not that any more."""
    try:
        fields = json.loads(data.to_pybytes())
        checksum, own_key = fields.pop("checksum"), fields.pop("key", key)  # earlier versions wrote no key
        preparation = Preparation(**{**fields, "warnings": tuple(fields["warnings"])})
        is_whole = checksum == _checksum(preparation)
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no preparation: {error}") from error
    if not is_whole:
        raise ValueError("its checksum is not that of its fields")
    if own_key != key:  # another's model would pass for this one's
        raise ValueError(f"its key is {own_key}, its name says otherwise")
    return preparation


def _checksum(preparation: Preparation) -> str:
    return content_hash(asdict(preparation))
