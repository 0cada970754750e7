"""A real RTSP server for tests, that of benchmarks/cameras.py."""

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
    """(port, program) of `rtsp_camera`; the test is skipped where the system has no such server."""
    with ExitStack() as stack:
        try:
            camera = stack.enter_context(rtsp_camera(port, **keys))
        except StreamSegError as error:
            pytest.skip(str(error))
        yield camera
