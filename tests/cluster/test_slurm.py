"""cluster/slurm.sbatch under a real SLURM: slurmctld, munge and two slurmd, each a machine of its own by namespaces.

A sweep over two nodes is warned of its time limit as soon as it has stored a trial; SLURM puts it back, and it goes on.
Another job shares its first node meanwhile. The test's folder is mounted at a place with a short name, for Ray's
sockets and munge's take no long one.
"""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from isolated import ISOLATED, PATH, session, why_not

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "munged", "ip", "nsenter", "unshare", "flock")
MOUNTED = Path("/mnt")
SWEEP = (
    "run planted --store store --methods random --num-removed 0 20 --seeds 0 1 2 3 --num-epochs 1 --num-train 320 "
    "--num-val 160 --num-test 160"
)
SLURM_CONF = f"""
ClusterName=small
SlurmctldHost=controller(10.9.0.254)
AuthType=auth/munge
# A job that is put back starts after so many seconds.
AuthInfo=socket={MOUNTED}/run/munge,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={MOUNTED}/state
SlurmdSpoolDir={MOUNTED}/spool/%n
SlurmctldPidFile={MOUNTED}/run/controller.pid
SlurmdPidFile={MOUNTED}/run/%n.pid
SlurmctldLogFile={MOUNTED}/controller.log
SlurmdLogFile={MOUNTED}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
NodeName=n1 NodeAddr=10.9.0.1 CPUs=4 State=UNKNOWN
NodeName=n2 NodeAddr=10.9.0.2 CPUs=4 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

SCRIPT = r"""
set -eu
ip link set lo up
mount --bind $BOX $MOUNTED; cd $MOUNTED
mkdir -p run state spool s work
mkdir -p /run/netns; mount -t tmpfs tmpfs /run/netns
mount --bind hosts /etc/hosts; hostname controller
ip link add bridge type bridge; ip addr add 10.9.0.254/24 dev bridge; ip link set bridge up
head -c 1024 /dev/urandom > munge.key; chmod 400 munge.key
munged --force --key-file=$MOUNTED/munge.key --socket=$MOUNTED/run/munge --pid-file=$MOUNTED/run/munged.pid \
    --log-file=$MOUNTED/munge.log --seed-file=$MOUNTED/run/seed
slurmctld
for i in 1 2; do
    ip netns add n$i
    ip link add v$i type veth peer name eth0 netns n$i; ip link set v$i master bridge up
    ip -n n$i addr add 10.9.0.$i/24 dev eth0; ip -n n$i link set eth0 up; ip -n n$i link set lo up
    mkdir -p spool/n$i nodes/n$i
    nsenter --net=/run/netns/n$i unshare --mount --uts bash -c "
        hostname n$i; mount -t tmpfs tmpfs /sys/fs/cgroup; mount --bind nodes/n$i s; exec slurmd -N n$i"
done
set +e
state() { scontrol show job $1 | sed -n 's/.*JobState=\([A-Z]*\).*/\1/p'; }
for _ in $(seq 150); do [ "$(sinfo -h -t idle -o %D)" != 2 ] || break; sleep 0.2; done
cd work; options="--parsable --cpus-per-task=1"
sweep=$(sbatch $options --nodes=2 $SCRIPT $SWEEP)
beside=$(sbatch $options --nodelist=n1 $SCRIPT status nowhere)
until ls store/trials/* >/dev/null 2>&1; do sleep 0.2; [[ $(state $sweep) =~ PENDING|RUNNING ]] || break; done
scancel --batch --signal=USR1 $sweep
while [ "$(state $sweep)" = RUNNING ]; do sleep 0.2; done
sleep 1; echo "left when put back:" $(ls -d ../nodes/*/d3m-ray-$sweep 2>/dev/null)
for job in $sweep $beside; do
    until [[ $(state $job) =~ COMPLETED|FAILED|CANCELLED ]]; do sleep 0.2; done
    echo "job $job: $(scontrol show job $job | grep -oE 'JobState=\w+|Restarts=[0-9]+|ExitCode=[0-9:]+' | xargs)"
    cat slurm-$job.out
done
sleep 1; echo "left at the end:" $(ls -d ../nodes/*/d3m-ray-* 2>/dev/null)
echo "raylets left: $(ps -eo args | grep -c '[r]aylet/raylet ')"
"""


def _why_not() -> str | None:
    if (reason := why_not(PROGRAMS)) is not None:
        return reason
    bridge = [*ISOLATED, "ip", "link", "add", "bridge", "type", "bridge"]
    if subprocess.run(bridge, capture_output=True, check=False, env={"PATH": PATH}).returncode != 0:
        return "the kernel has no network bridge"
    if not MOUNTED.is_dir() or any(Path(place).is_relative_to(MOUNTED) for place in (ROOT, sys.prefix)):
        return f"{MOUNTED} is there and holds nothing of this project"
    return None


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds SLURM's files, the nodes' own disks, and what they share."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "home" / ".ray").mkdir(parents=True)
    (folder / "home" / ".ray" / "auth_token").write_text("a token that was made before")
    (folder / "slurm.conf").write_text(SLURM_CONF)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n10.9.0.254 controller\n10.9.0.1 n1\n10.9.0.2 n2\n")
    return folder


@pytest.fixture(scope="module")
def printed(box: Path) -> str:
    """What the jobs printed, and what SLURM says of them."""
    variables = {
        "BOX": str(box),
        "D3M_RAY_SCRATCH": str(MOUNTED / "s"),
        "HOME": str(MOUNTED / "home"),
        "MOUNTED": str(MOUNTED),
        "PYTHONPATH": str(ROOT),
        "SCRIPT": str(ROOT / "cluster" / "slurm.sbatch"),
        "SLURM_CONF": str(MOUNTED / "slurm.conf"),
        "SWEEP": SWEEP,
    }
    return session(SCRIPT, variables, without=("RAY_", "TUNE_", "SLURM_", "D3M_RAY_")).stdout


@pytest.mark.slow
def test_a_sweep_over_two_nodes_goes_on_after_its_time_limit(box: Path, printed: str) -> None:
    assert "job 1: JobState=COMPLETED Restarts=1 ExitCode=0:0\n" in printed, printed
    assert printed.count("Ray runs on n[1-2]") == 2, printed
    stored = [int(number) for number in re.findall(r"8 trials, (\d) of them stored before", printed)]
    assert len(stored) == 2, printed
    assert stored[0] == 0
    assert stored[1] > 0
    trials = pd.read_parquet(box / "work" / "store" / "trials")
    worst = trials[(trials["group"] == "worst") & (trials["split"] == "test")]
    assert sorted(zip(worst["num_removed"], worst["seed"], strict=True)) == [(n, s) for n in (0, 20) for s in range(4)]


@pytest.mark.slow
def test_a_job_beside_it_on_a_node_fails_for_itself(printed: str) -> None:
    assert "job 2: JobState=FAILED Restarts=0 ExitCode=2:0\n" in printed, printed
    assert "nowhere" in printed, printed


@pytest.mark.slow
def test_nothing_is_left_on_the_nodes(printed: str) -> None:
    assert "left when put back:\n" in printed, printed
    assert "left at the end:\n" in printed, printed
    assert "\nraylets left: 0\n" in printed, printed
