"""Which Ray an address means, and whether one answers there; asked without loading Ray, before anything slow is."""

import os
import re
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from d3m_ray.errors import InputError

LOCAL: Final = "local"  # in the place of an address: a Ray that is started on this machine
ANSWER_SECONDS = 10  # for a port to answer at all
HTTP2_SETTINGS = b"\x04"
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + HTTP2_SETTINGS + b"\0\0\0\0\0"
# Ray's longest path below its folder, of which the system takes 107 bytes (unix(7)).
SOCKET_PATH = "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
MAX_SOCKET_BYTES = 107


def check_address(address: str) -> None:
    """Raises as `check_reachable` for what `--address` says, unless this process is on a cluster already."""
    loaded = sys.modules.get("ray")
    if loaded is None or not loaded.is_initialized():
        check_reachable(*meant_by(address))


def meant_by(address: str) -> tuple[str, str]:
    """What names the cluster, `--address` or RAY_ADDRESS, and where it is: HOST:PORT, ray://HOST:PORT or `LOCAL`."""
    named = "--address"
    if address == "auto" and (preset := os.environ.get("RAY_ADDRESS", "").strip()):
        named, address = "RAY_ADDRESS", preset
    if address == "auto":
        # Ray's own "auto" would also join what another sweep began for itself, and would end with that sweep.
        address = begun_with_ray_start() or LOCAL
    return named, address


def check_reachable(named: str, address: str) -> None:
    """Raises ConnectionError where no Ray answers there, InputError where one could not be started on this machine."""
    if address == LOCAL:
        _check_temporary_folder()
    elif not answers(address):
        otherwise = "unset RAY_ADDRESS" if named == "RAY_ADDRESS" else "leave --address out"
        raise ConnectionError(
            f"{named} names a running cluster, auto or local; no Ray answers at {address}: start the cluster with "
            f"ray start or ray up and name the address that it tells, or {otherwise}"
        )


def _check_temporary_folder() -> None:
    """Ray's sockets lie below its folder, and the system takes no long path for one."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    num_bytes = len(os.fsencode(str(Path(folder) / SOCKET_PATH)))
    if num_bytes > MAX_SOCKET_BYTES:
        raise InputError(
            f"RAY_TMPDIR is at most {MAX_SOCKET_BYTES - len(SOCKET_PATH) - 1} bytes long, so that Ray's sockets have "
            f"a path of {MAX_SOCKET_BYTES}; received {folder!r}: name a shorter folder"
        )


def begun_with_ray_start() -> str | None:
    """The address that `ray start` left on this machine, if a cluster still answers there."""
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.exists() else ""
    return address if address and answers(address) else None


def answers(address: str) -> bool:
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
