"""The RTSP server of benchmarks/cameras.py, for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from benchmarks.cameras import rtsp_camera
from stream_seg.errors import StreamSegError


@contextmanager
def rtsp_server(port: int = 0, **keys: Any) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Yield (port, process) of `rtsp_camera`; skip the test if the system has no such server."""
    with ExitStack() as stack:
        try:
            camera = stack.enter_context(rtsp_camera(port, **keys))
        except StreamSegError as error:
            pytest.skip(str(error))
        yield camera
