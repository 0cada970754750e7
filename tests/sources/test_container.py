"""FFmpeg allocates no more at once than it is allowed to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import av
from stream_seg.sources.container import DEFAULT_BYTES, allow_allocation

def fits(pixels):
    try:
        av.VideoFrame(pixels // 1024, 1024, "gray16le")
    except (av.FFmpegError, MemoryError):
        return False
    return True

allow_allocation(1000)
assert fits(DEFAULT_BYTES // 4) and not fits(DEFAULT_BYTES // 3 * 2)
allow_allocation(2 * DEFAULT_BYTES)
assert fits(DEFAULT_BYTES // 3 * 2)
allow_allocation(1)
assert fits(DEFAULT_BYTES // 3 * 2)
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_the_limit_only_grows() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
