"""Joining Ray: what does not answer, and what lets nobody in, is said at once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import ray
from cluster.test_addresses import LIKE_RAY, answering
from isolated import session, why_not

from d3m_ray.cluster import joining
from d3m_ray.cluster.addresses import answers
from d3m_ray.cluster.engine import connected
from d3m_ray.cluster.machines import TERMS
from d3m_ray.errors import InputError
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import ExecutionConfig


@pytest.mark.parametrize("named", ["--address", "RAY_ADDRESS"])
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_said_at_once(address, named, tmp_path, monkeypatch):
    if named == "RAY_ADDRESS":
        monkeypatch.setenv("RAY_ADDRESS", address)
    execution = ExecutionConfig(address=address) if named == "--address" else ExecutionConfig()
    refused = pytest.raises(ConnectionError, match=f"{named} names .* no Ray answers at {address}: start the cluster")
    with refused, connected(execution, Store(tmp_path)):
        pass
    assert not ray.is_initialized()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_what_is_no_ray_is_not_waited_for(answer, tmp_path):
    with answering(answer) as address:
        refused = pytest.raises(ConnectionError, match=f"no Ray answers at {address}")
        with refused, connected(ExecutionConfig(address=address), Store(tmp_path)):
            pass
    assert not ray.is_initialized()


def test_what_greets_as_ray_does_and_then_says_nothing_is_not_asked_for_long(monkeypatch):
    """Whether a token is taken: what else is wrong there, joining says."""
    monkeypatch.setattr(joining, "ANSWER_SECONDS", 0.2)
    with answering(LIKE_RAY) as address:
        joining._check_token("--address", address)


def test_a_folder_too_long_for_sockets_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "long" / ("x" * 60)))
    refused = pytest.raises(InputError, match=r"RAY_TMPDIR is at most 39 bytes long.* name a shorter folder")
    with refused, connected(ExecutionConfig(address="local"), Store(tmp_path)):
        pass
    assert not ray.is_initialized()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("small_cluster")
def test_ray_itself_answers():
    assert answers(ray.get_runtime_context().gcs_address)


def test_whatever_ray_raises_when_it_does_not_start_is_one_line(tmp_path, monkeypatch):
    def takes_too_long(**_: object) -> None:
        raise Exception("The current node timed out during startup.\nSee the logs.")

    monkeypatch.setattr(ray, "init", takes_too_long)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # a test before this one may have begun Ray for the file
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    refused = pytest.raises(
        ConnectionError, match=r"gave up waiting for Ray to start .* timed out during startup\.; see"
    )
    with refused, connected(ExecutionConfig(address="local"), Store(tmp_path)):
        pass


JOIN = """
import sys
from d3m_ray.cluster.engine import connected
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import ExecutionConfig
try:
    with connected(ExecutionConfig(address=sys.argv[2]), Store(sys.argv[3])):
        print(f"{sys.argv[1]}: joined")
except Exception as error:
    print(f"{sys.argv[1]}: {type(error).__name__}: {error}")
"""
SESSION = r"""
set -eu
ip link set lo up
mkdir -p $BOX/store $BOX/shared $HOME
ray get-auth-token --generate >/dev/null 2>&1
ray start --head --port=6379 --include-dashboard=false $SIZE >/dev/null 2>&1
python -c "$JOIN" auto auto $BOX/store
python -c "$JOIN" named 127.0.0.1:6379 $BOX/store
export RAY_AUTH_MODE=token
unshare --mount bash -c "mount -t tmpfs t $BOX/store && ray start --address=127.0.0.1:6379 $SIZE" >/dev/null 2>&1
unset RAY_AUTH_MODE
python -c "$JOIN" two auto $BOX/shared
python -c "$JOIN" apart auto $BOX/store
token=$HOME/.ray/auth_token
export HOME=$BOX/other
SECONDS=0
python -c "$JOIN" refused auto $BOX/store
echo "refused after: $((SECONDS / 10)) times ten seconds"
RAY_AUTH_TOKEN_PATH=$token RAY_AUTH_MODE=token python -c "$JOIN" preset 127.0.0.1:6379 $BOX/shared
"""


@pytest.mark.slow
def test_a_cluster_that_takes_a_token_is_joined_and_machines_apart_are_refused(tmp_path: Path) -> None:
    """On a Ray of its own, with the defaults of a user: `ray start` after an earlier local run left a token."""
    if (reason := why_not(["ip"])) is not None:
        pytest.skip(reason)
    variables = {
        "BOX": str(tmp_path),
        "HOME": str(tmp_path / "home"),
        "JOIN": JOIN,
        "RAY_TMPDIR": f"/tmp/d3m_ray_{os.getpid()}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "SIZE": "--num-cpus=1 --object-store-memory=100000000",
    }
    ended = session(SESSION, variables, without=("RAY_", "TUNE_"), stderr=subprocess.PIPE)
    shutil.rmtree(variables["RAY_TMPDIR"], ignore_errors=True)
    told = dict(line.split(": ", 1) for line in ended.stdout.splitlines() if ": " in line)
    assert ended.returncode == 0, ended.stderr
    assert told["auto"] == told["named"] == told["two"] == told["preset"] == "joined", told
    assert told["apart"].startswith(f"InputError: {TERMS}; ")
    assert ": does not see " in told["apart"]
    assert "refuses the token: see that its token, what ray get-auth-token prints" in told["refused"]
    assert told["refused after"] == "0 times ten seconds"
