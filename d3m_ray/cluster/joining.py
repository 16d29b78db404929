"""Join a Ray cluster, or start one on this machine; what does not answer, or takes no call of ours, is said at once."""

import logging
import os
import re
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path

import grpc
import ray
import ray.job_config
from ray._private.authentication import authentication_token_setup
from ray._private.gcs_utils import create_gcs_channel
from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

from d3m_ray.errors import InputError
from d3m_ray.waiting import Say, announced

ANSWER_SECONDS = 10  # for a port to answer at all
HTTP2_SETTINGS = b"\x04"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0\0\0\0\0"
# Ray's longest path below its folder, of which the system takes 107 bytes (unix(7)).
SOCKET_PATH = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MAX_SOCKET_BYTES = 107
CLIENT_SCHEME = "ray://"  # of an address where a process on the cluster's head makes the driver's calls
TOKEN = "its token, what ray get-auth-token prints on its head, is in ~/.ray/auth_token here"


def join(address: str, say: Say, metadata: Mapping[str, str] | None = None) -> bool:
    """Join the cluster at this address; whether it was started here, for this run. The job has the metadata.

    Raises ConnectionError where none answers there, or where it lets nobody in without its token.
    """
    named = "--address"
    if address == "auto" and (preset := os.environ.get("RAY_ADDRESS", "").strip()):
        named, address = "RAY_ADDRESS", preset
    if address == "auto":
        # Ray's own "auto" would also join what another sweep began for itself, and would end with that sweep.
        address = _begun_with_ray_start() or "local"
    if address == "local":
        _check_temporary_folder()
    elif not _answers(address):
        otherwise = "unset RAY_ADDRESS" if named == "RAY_ADDRESS" else "leave --address out"
        raise ConnectionError(
            f"{named} names a running cluster, auto or local; no Ray answers at {address}: start the cluster with "
            f"ray start or ray up and name the address that it tells, or {otherwise}"
        )
    else:
        _take_token()
        _check_token(named, address)
    what = "Ray to start on this machine" if address == "local" else f"Ray at {address} to let this process in"
    try:
        with announced(what, say):
            job = ray.job_config.JobConfig(metadata=dict(metadata or {}))
            ray.init(address=address, job_config=job, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:  # Ray raises a bare one where a node takes too long to start
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        fix = f"see what listens at {address}, and whether {TOKEN}"
        if address == "local":
            fix = "see RAY_TMPDIR, the folder of its files"
        raise ConnectionError(f"gave up waiting for {what}: {reason}; {fix}") from error
    return address == "local"


def _check_temporary_folder() -> None:
    """Ray's sockets lie below its folder, and the system takes no long path for one."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    num_bytes = len(os.fsencode(str(Path(folder) / SOCKET_PATH)))
    if num_bytes > MAX_SOCKET_BYTES:
        raise InputError(
            f"RAY_TMPDIR is at most {MAX_SOCKET_BYTES - len(SOCKET_PATH) - 1} bytes long, so that Ray's sockets have "
            f"a path of {MAX_SOCKET_BYTES}; received {folder!r}: name a shorter folder"
        )


def _begun_with_ray_start() -> str | None:
    """The address that `ray start` left on this machine, if a cluster still answers there."""
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.exists() else ""
    return address if address and _answers(address) else None


def _answers(address: str) -> bool:
    """Whether a server there speaks gRPC, as Ray's does. Ray itself would try for minutes, also to talk to a mute one.

    A gRPC server answers the greeting of HTTP/2 with a frame of its settings, type 4 (RFC 9113, sections 3.4 and 6.5).
    """
    host, _, port = re.sub(r"^\w+://", "", address).rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(HTTP2_GREETING)
            return connection.recv(4)[3:] == HTTP2_SETTINGS
    except (OSError, ValueError, OverflowError):
        return False


def _take_token() -> None:
    """Send the token of this user, if there is one, with every call. Ray does so by itself for the address auto alone.

    A cluster that asks for none takes the calls as they are. A RAY_AUTH_MODE that the user has set stands.
    """
    logger = logging.getLogger(authentication_token_setup.__name__)
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would advise to switch this off
    try:
        authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    finally:
        logger.setLevel(level)


def _check_token(named: str, address: str) -> None:
    """Raises ConnectionError where the cluster does not take this user's token. Ray itself would try for 20 seconds.

    Asked of gRPC, which takes a deadline: Ray's own client of a cluster's head waits for minutes, and says nothing,
    where something else answers there. Any other answer is for `ray.init` to deal with.
    """
    if address.startswith(CLIENT_SCHEME):  # speaks another protocol
        return
    question = gcs_service_pb2.GetClusterIdRequest()  # type: ignore[attr-defined] # generated
    try:
        with create_gcs_channel(address) as channel:
            gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel).GetClusterId(question, timeout=ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            return
        raise ConnectionError(
            f"{named} names a cluster that lets this user in; {address} refuses the token: see that {TOKEN}, "
            f"and that RAY_AUTH_MODE is token or unset (it is {os.environ.get('RAY_AUTH_MODE') or 'unset'})"
        ) from error
