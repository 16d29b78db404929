"""What a process frees is kept between steps, and given back after a fit."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from d3m_ray.training.memory import give_memory_back, keep_freed_memory

NUM_BYTES, PAGE = 48 << 20, resource.getpagesize()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(NUM_BYTES // 4)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * PAGE

fresh = faults(), faults()
keep_freed_memory()
faults()
kept, before = faults(), resident()
give_memory_back()
print(*fresh, kept, before - resident(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc for it, and leaves others as they are")
def test_what_is_freed_is_kept_until_it_is_given_back():
    command = [sys.executable, "-c", SCRIPT]
    *fresh, kept, given_back, asked_again = map(int, subprocess.check_output(command, text=True).split())
    pages = (48 << 20) // (1 << 21)  # at least, where they are the largest that a system gives out unasked
    assert min(fresh) > pages
    assert kept < pages / 2, "what is freed is asked for again"
    assert given_back > (40 << 20)
    assert asked_again > pages
