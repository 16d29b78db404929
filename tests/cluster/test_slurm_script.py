"""cluster/slurm.sbatch with stand-ins for SLURM, Ray and d3m-ray: what it starts, what it ends, and with which status.

`test_slurm.py` runs it under a real SLURM, where one is installed.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "cluster" / "slurm.sbatch"
STAND_INS = {
    # Ray: says how it was started, writes its address as Ray does, and stays until TERM.
    "ray": """
        [ "$1" = start ] || { mkdir -p "$HOME/.ray" && echo made > "$HOME/.ray/auth_token"; exit; }
        echo "$RAY_AUTH_MODE $RAY_AUTH_TOKEN $*" >> "$BOX/started"
        [ ! -e "$BOX/no-ray" ] || { echo "no room for Ray"; exit 1; }
        for word; do case $word in --temp-dir=*) echo 127.0.0.1:4321 > "${word#*=}/ray_current_cluster";; esac; done
        trap 'echo >> "$BOX/ended"; exit' TERM
        while :; do sleep 0.1; done""",
    # d3m-ray: says how it was called, then ends with $STATUS; where there is none, at TERM, with 143.
    "d3m-ray": """
        echo "$RAY_ADDRESS ${D3M_RAY_GPUS_PER_TRIAL:-none} $*" >> "$BOX/called"
        [ -z "${STATUS:-}" ] || exit "$STATUS"
        trap 'exit ${ENDS_WITH:-143}' TERM
        touch "$BOX/driving"
        while :; do sleep 0.1; done""",
    "scontrol": 'echo "$*" >> "$BOX/asked"',
}

Submit = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Starts the script as SLURM would start job 7, on one node."""
    for name, code in STAND_INS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{code}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    for name in ("home", "scratch"):
        (tmp_path / name).mkdir()
    variables = {
        "BOX": tmp_path,
        "D3M_RAY_SCRATCH": tmp_path / "scratch",
        "HOME": tmp_path / "home",
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "SLURM_CPUS_ON_NODE": 3,
        "SLURM_JOB_ID": 7,
        "SLURM_JOB_NODELIST": "n1",
    }
    for name in [*os.environ]:
        if name.startswith(("RAY_", "D3M_RAY_GPUS", "SLURM_")):
            monkeypatch.delenv(name)

    def start(*words: str, **more: object) -> "subprocess.Popen[str]":
        environment = os.environ | {name: str(value) for name, value in {**variables, **more}.items()}
        return subprocess.Popen(
            ["bash", SCRIPT, *words], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )

    return start


def ended(job: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = job.communicate(timeout=60)
    return job.returncode, said


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.05)


@pytest.mark.parametrize("status", [0, 1, 2])
def test_the_job_ends_with_the_status_of_the_driver(status: int, submit: Submit, tmp_path: Path) -> None:
    assert ended(submit("run", "toxigen", "--labels", "very bad", STATUS=status))[0] == status
    assert (tmp_path / "called").read_text() == "127.0.0.1:4321 none run toxigen --labels very bad\n"
    assert (tmp_path / "ended").exists(), "Ray was left"
    assert [*(tmp_path / "scratch").iterdir()] == []
    assert not (tmp_path / "asked").exists()


def test_ray_takes_what_slurm_gave_and_no_port_of_another_job(submit: Submit, tmp_path: Path) -> None:
    assert ended(submit("status", STATUS=0, SLURM_GPUS_ON_NODE=2, SLURM_MEM_PER_NODE=4000))[0] == 0
    started = (tmp_path / "started").read_text()
    assert started.startswith("token made start --head --port=0 --node-ip-address=127.0.0.1 ")
    assert (tmp_path / "home" / ".ray" / "auth_token").exists()
    for flag in ("--num-cpus=3", "--num-gpus=2", f"--object-store-memory={1000 * 1024**2}", "--block"):
        assert f" {flag} " in started
    ports = re.findall(r"--([a-z-]+)-port=(\d+)", started)
    assert [name for name, port in ports if port == "0"] == ["dashboard-agent-listen", "min-worker", "max-worker"]
    chosen = {name: int(port) for name, port in ports if port != "0"}
    assert set(chosen) == {"dashboard", "ray-client-server"}
    assert min(chosen.values()) > 1024
    assert len(set(chosen.values())) == 2
    assert (tmp_path / "called").read_text() == "127.0.0.1:4321 1 status\n"


@pytest.mark.parametrize("ends_with", [143, 1])
def test_before_the_time_limit_the_job_goes_back_into_the_queue(ends_with: int, submit: Submit, tmp_path: Path) -> None:
    """And only once nothing of it is left."""
    job = submit("run", "toxigen", ENDS_WITH=ends_with)
    wait_for(tmp_path / "driving")
    job.send_signal(signal.SIGUSR1)
    status, said = ended(job)
    assert status == ends_with
    assert "the job goes back into the queue" in said
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    assert (tmp_path / "ended").exists()
    assert [*(tmp_path / "scratch").iterdir()] == []


def test_a_job_that_is_ended_by_slurm_does_not_put_itself_back(submit: Submit, tmp_path: Path) -> None:
    """SLURM itself puts a preempted job back; what a user has cancelled stays cancelled."""
    job = submit("run", "toxigen")
    wait_for(tmp_path / "driving")
    job.send_signal(signal.SIGTERM)
    assert ended(job)[0] == 143
    assert not (tmp_path / "asked").exists()
    assert [*(tmp_path / "scratch").iterdir()] == []


@pytest.mark.parametrize("ends_with", [0, 2])
def test_a_warned_job_that_is_done_or_wrong_stays_out(ends_with: int, submit: Submit, tmp_path: Path) -> None:
    job = submit("run", "toxigen", ENDS_WITH=ends_with)
    wait_for(tmp_path / "driving")
    job.send_signal(signal.SIGUSR1)
    assert ended(job)[0] == ends_with
    assert not (tmp_path / "asked").exists()


def test_a_ray_that_does_not_start_fails_the_job(submit: Submit, tmp_path: Path) -> None:
    """`ray symmetric-run` ends with 0 then."""
    (tmp_path / "no-ray").touch()
    status, said = ended(submit("run", "toxigen", STATUS=0))
    assert status == 1
    assert re.search("error: Ray has not started on .*: no room for Ray", said)
    assert not (tmp_path / "called").exists()
    assert [*(tmp_path / "scratch").iterdir()] == []


def test_the_folders_of_killed_jobs_go_and_those_of_running_ones_stay(submit: Submit, tmp_path: Path) -> None:
    dead, living = (tmp_path / "scratch" / f"d3m-ray-{job}" for job in (5, 6))
    for folder in (dead, living):
        folder.mkdir()
        (folder / "lock").touch()
        os.utime(folder, (0, 0))
    (holder := subprocess.Popen(["flock", living / "lock", "sleep", "60"], start_new_session=True)).poll()
    try:
        deadline = time.monotonic() + 10
        while subprocess.run(["flock", "-n", living / "lock", "true"], check=False).returncode == 0:
            assert time.monotonic() < deadline
        assert ended(submit("status", STATUS=0))[0] == 0
        assert [*(tmp_path / "scratch").iterdir()] == [living]
    finally:
        os.killpg(holder.pid, signal.SIGKILL)
        holder.wait()


@pytest.mark.parametrize(
    ("words", "variables", "rule"),
    [
        ([], {}, "what d3m-ray is to do stands after the script"),
        (["status"], {"SLURM_JOB_ID": ""}, "this script is submitted"),
        (["status"], {"PATH": "/usr/bin:/bin"}, "d3m-ray is in .venv"),
    ],
)
def test_a_wrong_call_is_refused(words: list[str], variables: dict[str, str], rule: str, submit: Submit) -> None:
    status, said = ended(submit(*words, **variables))
    assert (status, said.count("\n")) == (2, 1)
    assert rule in said


def test_what_sbatch_is_asked_for() -> None:
    text = SCRIPT.read_text()
    options = re.findall("^#SBATCH (.*)$", text, re.MULTILINE)
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@120", "--ntasks-per-node=1"} <= set(options)
    page = (SCRIPT.parents[1] / "docs" / "slurm.md").read_text(encoding="utf-8")
    assert re.findall("^#SBATCH (.*)$", page, re.MULTILINE) == options
    assert "ray stop" not in re.sub(r"#.*", "", text), "it would end the Ray of other jobs of this user"
    limits = {name: int(number) for name, number in re.findall(r"^(\w+_SECONDS)=(\d+)", text, re.MULTILINE)}
    assert limits["STOP_SECONDS"] + 40 <= 120, "the driver is stopped, then Ray, before the time is up"
