"""Signals that ask a command to end do what Ctrl-C does: a message, a whole store, a status that says which it was."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from d3m_ray.commands.signals import ENDING, WARNING, Stopped, ended_by_signals, heed_warnings
from d3m_ray.commands.terminal import exit_status
from d3m_ray.store.store import Store
from d3m_ray.trials.settings import ExecutionConfig

ROOT = Path(__file__).resolve().parents[2]


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (*ENDING, WARNING)]


def ends_by(number: int) -> int:
    os.kill(os.getpid(), number)
    time.sleep(10)
    return 0


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGHUP, "SIGHUP")])
def test_a_signal_is_said_and_is_the_status(number, name, capsys):
    before = handlers()
    assert exit_status(lambda: ends_by(number)) == 128 + number
    assert capsys.readouterr().err == f"ended by {name}: what was done is stored, the same command goes on from there\n"
    assert handlers() == before


def test_a_signal_is_told_also_where_another_library_makes_ctrl_c_of_it(capsys):
    def waits_in_ray() -> int:
        try:
            return ends_by(signal.SIGTERM)
        except Stopped:
            raise KeyboardInterrupt from None

    def is_interrupted() -> int:
        raise KeyboardInterrupt

    assert exit_status(waits_in_ray) == 143
    assert capsys.readouterr().err.startswith("ended by SIGTERM: ")
    assert exit_status(is_interrupted) == 130
    assert capsys.readouterr().err.startswith("interrupted: ")


def test_usr1_ends_a_run_only_where_it_was_told_to():
    noticed = []
    before = signal.signal(WARNING, lambda *_: noticed.append("as before"))
    try:
        with ended_by_signals():
            heed_warnings(ExecutionConfig())
            os.kill(os.getpid(), WARNING)
            assert noticed == ["as before"]
            heed_warnings(ExecutionConfig(stop_on_usr1=True))
            with pytest.raises(Stopped, match="SIGUSR1"):
                os.kill(os.getpid(), WARNING)
    finally:
        signal.signal(WARNING, before)


def test_what_is_ignored_stays_so_and_nothing_interrupts_the_end():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with ended_by_signals():
            os.kill(os.getpid(), signal.SIGHUP)
            with pytest.raises(Stopped):
                os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_thread_leaves_the_signals_alone():
    told = []

    def work() -> None:
        before = handlers()
        with ended_by_signals():
            heed_warnings(ExecutionConfig(stop_on_usr1=True))
            told.append(handlers() == before)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert told == [True]


LEAVES_WORK = """
import threading
from d3m_ray import waiting
from d3m_ray.commands.terminal import end
waiting.bounded(threading.Event().wait, 0.01)
import atexit
atexit.register(print, "the interpreter ended")
print("told")
end(143)
"""


def test_a_process_with_work_left_ends_at_once_with_what_it_said():
    ended = subprocess.run([sys.executable, "-c", LEAVES_WORK], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (143, "told\n")
    tidy = LEAVES_WORK.replace("threading.Event().wait, 0.01", "print, 10")
    ended = subprocess.run([sys.executable, "-c", tidy], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (143, "\ntold\nthe interpreter ended\n")


@pytest.mark.slow
def test_a_run_in_one_process_ends_and_goes_on(tmp_path):
    flags = "--engine local --methods random --num-removed 0 5 --seeds 0 1 --num-train 400 --num-epochs 4"
    command = [sys.executable, "sweeps/demo.py", "--store", str(tmp_path), *flags.split(), "--stop-on-usr1"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    store, deadline = Store(tmp_path), time.monotonic() + 120
    while not store.keys("trials") and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(WARNING)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + WARNING, output
    assert "ended by SIGUSR1: what was done is stored" in output
    done = store.keys("trials")
    assert 1 <= len(done) < 4
    assert subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode == 0
    assert done < store.keys("trials")
