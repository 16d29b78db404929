"""A table as the bytes of a Parquet file whose metadata says what produced it, and back."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from d3m_ray.store.provenance import software

METADATA_KEY, METADATA_CHECKSUM = b"d3m_ray", b"d3m_ray_sha256"
FILE_CHECKSUM = b"d3m_ray_file_sha256"  # of every byte, with zeros in its own place
_NOT_YET = b"0" * 64
_FOOTER_END = 8  # bytes: the length of the footer, little-endian, and "PAR1"
# Every page has a checksum, so that a bit that turned is told from a result.
CHECKED_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)


def table_to_bytes(content: pa.Table, configuration: Mapping[str, Any]) -> pa.Buffer:
    """The file: its metadata are the configuration (JSON values) and which software wrote it."""
    return parts_to_bytes(content.schema, [content], configuration)


def parts_to_bytes(schema: pa.Schema, parts: Iterable[pa.Table], configuration: Mapping[str, Any]) -> pa.Buffer:
    """As `table_to_bytes`, of a table that comes in parts, so that it need not be in memory as a whole."""
    metadata = {"configuration": configuration, **software()}
    encoded = json.dumps(metadata, sort_keys=True, allow_nan=False).encode()
    described = schema.with_metadata({METADATA_KEY: encoded, METADATA_CHECKSUM: _checksum(encoded)})
    sink = pa.BufferOutputStream()
    with checked_writer(sink, described) as writer:
        for part in parts:
            writer.write_table(part.cast(described))
    return with_checksum(sink)


@contextmanager
def checked_writer(sink: pa.BufferOutputStream, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """What writes a file whose bytes are told from others, once it is done and `with_checksum` has seen it.

    Without statistics: by one in which a bit turned, a reader that filters would pass over rows without a word.
    """
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True, write_statistics=False) as writer:
        yield writer
        writer.add_key_value_metadata({FILE_CHECKSUM: _NOT_YET})


def with_checksum(sink: pa.BufferOutputStream) -> pa.Buffer:
    """What a `checked_writer` wrote into it, with its checksum."""
    data = sink.getvalue()
    place = _place_of(_NOT_YET, data)
    memoryview(data).cast("B")[place : place + len(_NOT_YET)] = _checksum(data)
    return data


def check_bytes(data: pa.Buffer, file: pq.ParquetFile) -> None:
    """Raises ValueError where the file is not what was written, to the bit; earlier versions wrote no checksum."""
    expected = (file.metadata.metadata or {}).get(FILE_CHECKSUM)
    if expected is None:
        return
    place = _place_of(expected, data)
    end = place + len(expected)
    if place < 0 or expected != _checksum(data[:place], _NOT_YET, data[end:]):
        raise ValueError("its bytes do not have their checksum")


def table_from_bytes(data: pa.Buffer) -> pa.Table:
    """The table. Raises ValueError where the file is truncated or no longer what was written."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_metadata(file.schema_arrow.metadata or {})
        check_bytes(data, file)
        return file.read()
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error


def parts_from_bytes(data: pa.Buffer) -> Iterator[pa.Table]:
    """The table, one row group after another. Raises as `table_from_bytes`, where it comes to it."""
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        _check_metadata(file.schema_arrow.metadata or {})
        check_bytes(data, file)
        if file.num_row_groups == 0:
            yield file.read()
        for number in range(file.num_row_groups):
            yield file.read_row_group(number)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(str(error)) from error


def metadata_from_bytes(data: pa.Buffer) -> dict[str, Any]:
    """What `table_to_bytes` was told, from the file's last bytes alone. Raises as `table_from_bytes`."""
    try:
        metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
        _check_metadata(metadata)
        return json.loads(metadata[METADATA_KEY])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(str(error)) from error


def _check_metadata(metadata: Mapping[bytes, bytes]) -> None:
    """Raises ValueError where what produced the table is not what was written; earlier versions wrote no checksum."""
    if METADATA_CHECKSUM in metadata and metadata[METADATA_CHECKSUM] != _checksum(metadata.get(METADATA_KEY, b"")):
        raise ValueError("its metadata do not have their checksum")


def _place_of(checksum: bytes, data: pa.Buffer) -> int:
    """Where the checksum of the file stands in its footer, below 0 where it does not."""
    num_bytes = _FOOTER_END + int.from_bytes(data[-_FOOTER_END:-4].to_pybytes(), "little")
    footer = data[-num_bytes:].to_pybytes()
    within = footer.find(checksum, footer.rfind(FILE_CHECKSUM))
    return within if within < 0 else data.size - num_bytes + within


def _checksum(*parts: bytes | pa.Buffer) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()
