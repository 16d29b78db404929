"""The folder of Tune's files goes with its run, and with the next one where the run was killed."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from d3m_ray.cluster.scratch import LOCK, PREFIX, Scratch

HOLD = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from d3m_ray.cluster.scratch import Scratch
scratch = Scratch()
print(scratch.make(), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_the_folder_goes_when_it_is_told_to_and_again(tmp_path: Path) -> None:
    scratch = Scratch()
    scratch.delete()
    folder = Path(scratch.make())
    assert [path.name for path in folder.iterdir()] == [LOCK]
    scratch.delete()
    assert list(tmp_path.iterdir()) == []
    scratch.delete()


def test_what_a_killed_run_left_is_swept_and_what_is_in_use_stays(tmp_path: Path) -> None:
    not_ours, older = tmp_path / "d3m_ray_other", tmp_path / f"{PREFIX}unlocked"
    not_ours.mkdir()
    older.mkdir()
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    held = Path(process.stdout.readline().strip())
    first, second = Scratch(), Scratch()
    folder = Path(first.make())
    assert held.is_dir()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert held.is_dir()
    second.make()
    assert not held.exists()
    assert folder.is_dir()
    first.delete()
    second.delete()
    assert set(tmp_path.iterdir()) == {not_ours, older}
