"""`ray up`, `ray submit`, `ray rsync-down` and `ray down` of cluster.yaml, for real, on one machine over a real sshd.

All of it runs in network, process and mount namespaces of its own: `ray stop` sees only these processes, the ports are
private, /tmp/ray is a private tmpfs, and the home folder of the login is a temporary one, by a private /etc/passwd. The
folder `laptop` is the home of the one who calls Ray, `node` that of the head.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from isolated import session, why_not

ROOT = Path(__file__).resolve().parents[2]
CONFIG = yaml.safe_load((ROOT / "cluster.yaml").read_text())
PROGRAMS = ("sshd", "ssh", "ssh-keygen", "rsync", "ip", "ss")
DEMO_ARGUMENTS = (
    "--store ~/results/demo --methods random --num-removed 0 20 --seeds 0 --num-epochs 1 --num-workers 1 --address auto"
)

ASK_DASHBOARD = """
from urllib.error import HTTPError
from urllib.request import urlopen
try:
    status = urlopen("http://127.0.0.1:8265/api/cluster_status", timeout=10).status
except HTTPError as error:
    status = error.code
print("dashboard without a token:", status)
"""

SCRIPT = r"""
set -eu
ip link set lo up
mkdir -p /run/sshd /tmp/ray
mount -t tmpfs tmpfs /tmp/ray
sed "s#^root:\(.*\):/root:#root:\1:$BOX/node:#" /etc/passwd > $BOX/passwd
mount --bind $BOX/passwd /etc/passwd
$(command -v sshd) -f $BOX/sshd_config -E $BOX/sshd.log
set +e
ray get-auth-token --generate >/dev/null; echo "token: $?"
ray up -y --no-config-cache $BOX/cluster.yaml; echo "up: $?"
ss -ltnH 'sport = :8265' | awk '{ print "dashboard at: " $4 }'
python -c "$ASK_DASHBOARD"
ray submit $BOX/cluster.yaml sweeps/demo.py -- $DEMO_ARGUMENTS; echo "submit: $?"
ray submit $BOX/cluster.yaml sweeps/demo.py -- $DEMO_ARGUMENTS --batch-size 0; echo "failing submit: $?"
ray rsync-down $BOX/cluster.yaml '~/results/demo/' $BOX/store/; echo "rsync-down: $?"
ray down -y $BOX/cluster.yaml; echo "down: $?"
echo "raylets left: $(ps -eo args | grep -c '[r]aylet/raylet ')"
"""


def _write_sshd_config(box: Path) -> None:
    for key in ("login", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", box / key], check=True)
    settings = {
        "Port": "22",
        "ListenAddress": "127.0.0.1",
        "HostKey": box / "host",
        "AuthorizedKeysFile": box / "login.pub",
        "PidFile": box / "sshd.pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxStartups": "100",
    }
    (box / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in settings.items()))


def _local_config(box: Path) -> dict[str, Any]:
    """cluster.yaml with this machine for a provider, and its packages in place of an installation."""
    kept = ("cluster_name", "file_mounts", "rsync_exclude")
    setup = [command for command in CONFIG["setup_commands"] if "pip" not in command and "apt-get" not in command]
    # The packages of the environment that the tests run in, d3m_ray from what was synced, and no GPU.
    link = f"ln -sfn {sys.prefix} ~/venv"
    synced = "echo 'export PYTHONPATH=$HOME/d3m-ray' >> ~/d3m-ray.env"
    no_gpu = "sed -i -E 's/(GPUS_PER_[A-Z]+)=[0-9.]+/\\1=0/g; s/(CPUS_PER_TRIAL)=[0-9]+/\\1=1/' ~/d3m-ray.env"
    start = [
        re.sub("ray start", "ray start --num-cpus=2 --object-store-memory=200000000", command)
        for command in CONFIG["head_start_ray_commands"]
    ]
    return {key: CONFIG[key] for key in kept} | {
        "provider": {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []},
        "auth": {"ssh_user": "root", "ssh_private_key": str(box / "login")},
        "setup_commands": [*setup, link, synced, no_gpu],
        "head_start_ray_commands": start,
        "worker_start_ray_commands": [],
    }


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the two homes, the keys and the configurations."""
    reason = why_not(PROGRAMS)
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("box")
    for name in ("laptop/tmp", "node", "store"):
        (folder / name).mkdir(parents=True)
    _write_sshd_config(folder)
    (folder / "cluster.yaml").write_text(yaml.safe_dump(_local_config(folder)))
    return folder


@pytest.fixture(scope="module")
def printed(box: Path) -> str:
    """What the whole session printed, the commands' exit statuses among it."""
    variables = {
        "ASK_DASHBOARD": ASK_DASHBOARD,
        "BOX": str(box),
        "DEMO_ARGUMENTS": DEMO_ARGUMENTS,
        "HOME": str(box / "laptop"),
        "TERM": "dumb",
        "TMPDIR": str(box / "laptop" / "tmp"),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_UP_enable_autoscaler_v2": "0",
    }
    return session(SCRIPT, variables, without=("RAY_", "TUNE_", "PYTHON"), folder=ROOT).stdout


@pytest.mark.slow
def test_a_sweep_is_submitted_and_its_store_comes_back(box: Path, printed: str) -> None:
    for step in ("token", "up", "submit", "rsync-down", "down"):
        assert f"\n{step}: 0\n" in f"\n{printed}", printed
    assert "\nraylets left: 0\n" in printed, printed
    trials = pd.read_parquet(box / "store" / "trials")
    worst = trials[(trials["group"] == "worst") & (trials["split"] == "test")]
    assert sorted(worst["num_removed"]) == [0, 20]
    assert worst["accuracy"].between(0, 1).all()
    assert (box / "node" / "d3m-ray" / "d3m_ray" / "experiment" / "story.py").is_file()


@pytest.mark.slow
def test_a_script_that_fails_fails_the_submission(printed: str) -> None:
    assert "\nfailing submit: 1\n" in printed, printed
    assert "--batch-size is at least 1" in printed, printed


@pytest.mark.slow
def test_the_dashboard_answers_on_localhost_and_with_a_token(printed: str) -> None:
    assert re.findall(r"^dashboard at: (.*)$", printed, re.MULTILINE) == ["127.0.0.1:8265"], printed
    assert "\ndashboard without a token: 401\n" in printed, printed
