"""The log of a run: each line that it said, with the time, as JSON lines in the store and by the logger `d3m_ray`."""

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from d3m_ray.store.errors import StoreError
from d3m_ray.store.store import Store

LOGGER = logging.getLogger("d3m_ray")
LOGGER.addHandler(logging.NullHandler())  # where nobody configured logging, what a run says is on screen already
WRITE_SECONDS = 30.0  # between two writes of the file, which is rewritten whole: each is a request to the store


class RunLog:
    """Keeps what a run says, and writes it to `logs/EXPERIMENT/TIME-PID-DRAWN.jsonl` once it knows where.

    What is said goes to the logger `d3m_ray` too, whose level is the user's to set: it keeps no line from the file. Two
    runs of one process, or of machines that count alike, in one second have a file each. A log that cannot be written
    is given up in silence: it is no result, and what keeps it from the store will stop the run itself.
    """

    def __init__(self) -> None:
        self._begun = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}-{uuid4().hex[:8]}"
        self._lines: list[str] = []
        self._num_written = 0
        self._written_at = -WRITE_SECONDS
        self._place: tuple[Store, str] | None = None
        self._lock = threading.Lock()

    def place(self, store: Store, experiment: str) -> None:
        """Say where the log belongs."""
        self._place = store, experiment

    def tell(self, level: int, message: str, event: Mapping[str, Any] | None = None) -> None:
        """Keep a line: its time, level and message, and the entries of its event; the logger gets it too."""
        LOGGER.log(level, "%s", message, extra={"event": event or {}})
        told = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "level": logging.getLevelName(level).lower(),
            "message": message,
            **(event or {}),
        }
        with self._lock:  # a wait is told by a thread of its own
            self._lines.append(json.dumps(told, ensure_ascii=False))
            if time.monotonic() - self._written_at >= WRITE_SECONDS:
                self._write()

    def write(self) -> None:
        """Write all lines so far, where there are new ones and a place for them."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        if self._place is None or self._num_written == len(self._lines):
            return
        store, experiment = self._place
        with suppress(StoreError):
            store.write_log(experiment, self._begun, "\n".join([*self._lines, ""]).encode(errors="backslashreplace"))
        self._num_written, self._written_at = len(self._lines), time.monotonic()
