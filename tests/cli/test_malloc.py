"""Tests that frames of a video and tensors of a training step reuse freed memory without page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import numpy as np
from stream_seg.cli import malloc
size, tune = int(sys.argv[1]), sys.argv[2]
if tune:
    getattr(malloc, tune)()
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(size, np.uint8) for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(size: int, tune: str) -> int:
    """Return the page faults of the last of six steps, which each allocate three arrays of `size` bytes."""
    command = [sys.executable, "-c", STEPS, str(size), tune]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
@pytest.mark.parametrize(("size", "tune"), [(40 * 2**20, "keep_freed_memory"), (8 * 2**20, "keep_buffers")])
def test_freed_memory_serves_the_next_step(size: int, tune: str) -> None:
    assert count_faults(size, tune) < 10
    assert count_faults(size, "") > 20  # pages of 4 KiB or of 2 MiB
