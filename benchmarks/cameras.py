"""An RTSP camera for tests and benchmarks: GStreamer's server in a process that can be killed and stopped.

It needs the system's Python with GStreamer (Debian: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-ugly).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from stream_seg.errors import StreamSegError

SERVER = """
import sys
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("x264enc", "rtph264pay")))
port, size, rate, pattern, password = sys.argv[1:]
width, height = size.split("x")
server = GstRtspServer.RTSPServer(address="127.0.0.1", service=port)
factory = GstRtspServer.RTSPMediaFactory()
factory.set_launch(f"( videotestsrc is-live=true pattern={pattern}"
                   f" ! video/x-raw,width={width},height={height},framerate={rate}/1"
                   " ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )")
factory.set_shared(True)
if password:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "user")
    auth.add_basic(GstRtspServer.RTSPAuth.make_basic("user", password), token)
    server.set_auth(auth)
    allowed = GstRtspServer.RTSPPermissions()
    allowed.add_permission_for_role("user", "media.factory.access", True)
    allowed.add_permission_for_role("user", "media.factory.construct", True)
    factory.set_permissions(allowed)
server.get_mount_points().add_factory("/live", factory)
assert server.attach(None)
print(server.get_bound_port(), flush=True)
GLib.MainLoop().run()
"""


@contextmanager
def rtsp_camera(
    port: int = 0, *, size: str = "320x240", rate: int = 30, pattern: str = "ball", password: str = ""
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Serve rtsp://127.0.0.1:PORT/live until the body ends; yield (port, process).

    `pattern` is one of videotestsrc. With a `password` only `user` has access. Raises StreamSegError if the system has
    no such server.
    """
    python = shutil.which("python3", path=os.defpath)
    if python is None:
        raise StreamSegError("no system Python for GStreamer's RTSP server")
    with subprocess.Popen(
        [python, "-c", SERVER, str(port), size, str(rate), pattern, password],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        try:
            if not line:
                raise StreamSegError("the system's Python lacks GStreamer's RTSP server or its H.264")
            yield int(line), server
        finally:
            server.send_signal(signal.SIGCONT)
            server.kill()
