"""The log of a run: each line that it said, with the time, as JSON lines in the store and by the logger `d3m_ray`."""

import json
import logging
import os
import time
from contextlib import suppress
from datetime import UTC, datetime

from d3m_ray.store.files import StoreError
from d3m_ray.store.store import Store

LOGGER = logging.getLogger("d3m_ray")
WRITE_SECONDS = 30.0  # between two writes of the file, which is rewritten whole: each is a request to the store


class RunLog(logging.Handler):
    """Keeps what a run says, and writes it to `logs/EXPERIMENT/TIME-PID.jsonl` once it knows store and experiment.

    A log that cannot be written is given up in silence: it is no result, and what keeps it from the store will stop
    the run itself.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._begun = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"
        self._lines: list[str] = []
        self._num_written = 0
        self._written_at = -WRITE_SECONDS
        self._place: tuple[Store, str] | None = None

    def place(self, store: Store, experiment: str) -> None:
        """Say where the log belongs."""
        self._place = store, experiment

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record: its time, level and message, and the entries of its `event`."""
        told = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "event", {}),
        }
        self._lines.append(json.dumps(told, ensure_ascii=False))
        if time.monotonic() - self._written_at >= WRITE_SECONDS:
            self.write()

    def write(self) -> None:
        """Write all lines so far, where there are new ones and a place for them."""
        if self._place is None or self._num_written == len(self._lines):
            return
        store, experiment = self._place
        with suppress(StoreError):
            store.write_log(experiment, self._begun, "\n".join([*self._lines, ""]).encode())
        self._num_written, self._written_at = len(self._lines), time.monotonic()
