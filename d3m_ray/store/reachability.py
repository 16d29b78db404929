"""Asks whether a remote store answers, in a process of its own that ends in time; also the script of that process."""

import os
import subprocess
import sys
import threading
from urllib.parse import urlsplit

ANSWER_SECONDS = 10  # a bucket answers within one or two
START_SECONDS = 60  # of the process itself, on a machine under load
GCS_RETRY_SECONDS = 3  # Arrow's Google client would try a refused connection for a quarter of an hour


def reason_out_of_reach(uri: str, seconds: float = ANSWER_SECONDS) -> str | None:
    """Why the file system of a URI gives no answer within the seconds, in one line; None where it does.

    Arrow's clients take no deadline: without a network they try on for minutes, and a thread left behind in one of them
    holds up the end of the process. So a process of its own asks first. It gets the URI, which may hold a password, on
    its standard input.
    """
    command = [sys.executable, "-P", __file__, str(seconds)]
    try:
        asked = subprocess.run(command, input=uri, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {START_SECONDS} s"
    if asked.returncode == 0:
        return None
    return asked.stdout.strip() or f"the process that asks ended with {asked.returncode}: {asked.stderr.strip()[-200:]}"


def _look(uri: str, answers: list[str]) -> None:
    from pyarrow import fs

    if uri.startswith("gs:") and "retry_limit_seconds" not in uri:
        uri += f"{'&' if urlsplit(uri).query else '?'}retry_limit_seconds={GCS_RETRY_SECONDS}"
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        filesystem.get_file_info(path)
        answers.append("")
    except Exception as error:
        answers.append(" ".join(str(error).split()) or type(error).__name__)


def _main() -> None:
    """Write the reason, where there is one, and end at once, whatever the client is still at."""
    seconds = float(sys.argv[1])
    answers: list[str] = []
    thread = threading.Thread(target=_look, args=(sys.stdin.read(), answers), daemon=True)
    thread.start()
    thread.join(seconds)
    reason = answers[0] if answers else f"no answer within {seconds:g} s"
    sys.stdout.write(reason)
    sys.stdout.flush()
    os._exit(1 if reason else 0)


if __name__ == "__main__":
    _main()
