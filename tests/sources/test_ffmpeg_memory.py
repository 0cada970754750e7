"""FFmpeg takes no more in one piece than a picture needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import av
from stream_seg.sources.ffmpeg_memory import MOST, allow

def fits(pixels):
    try:
        av.VideoFrame(pixels // 1024, 1024, "gray16le")
    except (av.FFmpegError, MemoryError):
        return False
    return True

allow(1000)
assert fits(MOST // 4) and not fits(MOST // 3 * 2)
allow(2 * MOST)
assert fits(MOST // 3 * 2)
allow(1)  # what was allowed stays so
assert fits(MOST // 3 * 2)
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_what_is_allowed_only_grows() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
