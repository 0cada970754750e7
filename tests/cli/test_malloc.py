"""Tests that tensors of a training step reuse freed memory without page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import numpy as np
from stream_seg.cli.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [np.ones(40 * 2**20, np.uint8) for _ in range(3)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_freed_memory_serves_the_next_step() -> None:
    faults = {
        mode: int(
            subprocess.run([sys.executable, "-c", STEPS, mode], capture_output=True, text=True, check=True).stdout
        )
        for mode in ("keep", "return")
    }
    assert faults["keep"] < 10
    assert faults["return"] > 20  # pages of 4 KiB or of 2 MiB
