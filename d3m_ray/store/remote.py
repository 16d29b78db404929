"""File systems of buckets whose requests end in time, and that write a small file in one request."""

from urllib.parse import urlsplit

from pyarrow import fs

CONNECT_SECONDS = 5.0  # to open a connection; within one region it takes milliseconds
SILENCE_SECONDS = 10.0  # without a byte of an answer, of one try; AWS answers within one or two
MAX_TRIES = 3
GCS_RETRY_SECONDS = 30  # Arrow's Google client would try a refused connection for a quarter of an hour


def open_remote(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system of a URI, and the path in it. Raises as `pyarrow.fs.FileSystem.from_uri`."""
    if uri.startswith("gs:") and "retry_limit_seconds" not in uri:
        uri += f"{'&' if urlsplit(uri).query else '?'}retry_limit_seconds={GCS_RETRY_SECONDS}"
    filesystem, path = fs.FileSystem.from_uri(uri)
    return bounded(filesystem), path


def bounded(filesystem: fs.FileSystem) -> fs.FileSystem:
    """The same file system; of S3, one that gives up a server that does not answer, after `MAX_TRIES`.

    A URI cannot say so, and a pickle forgets how often is tried: to be asked for after each. S3 then also opens a file
    when its first part is written, so that one of less than a part is a request, and not three. Timeouts of a request
    are, on Linux too, those of curl for a connection that is silent, whatever pyarrow's documentation says.
    """
    if not isinstance(filesystem, fs.S3FileSystem):
        return filesystem
    make, (options,) = filesystem.__reduce__()
    return make(
        {
            **options,
            "connect_timeout": CONNECT_SECONDS,
            "request_timeout": SILENCE_SECONDS,
            "allow_delayed_open": True,
            "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=MAX_TRIES),
        }
    )
