"""`show` on a real X server without a screen (Xvfb), each time in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]

SHOW = """
import sys, threading, time
from fractions import Fraction
import numpy as np
from stream_seg.errors import OutputError
from stream_seg.frame import Frame
from stream_seg.stages.show import Show

image = np.empty((200, 300, 3), np.uint8)
image[:, :150], image[:, 150:] = (0, 0, 250), (0, 250, 0)  # red at the left, green at the right

def frames():
    seq = 0
    while True:
        yield Frame("front", seq, seq, Fraction(1, 50), 0, image)
        seq += 1
        if seq == 10:
            print("shown", flush=True)
        time.sleep(0.02)

def run():
    try:
        for _ in Show(title="window", max_width=150)(frames()):
            pass
        print("ended", flush=True)
    except OutputError as error:
        print(error, flush=True)

for _ in range(int(sys.argv[1])):  # stages run in threads, a new one for every graph
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
"""

CLOSE = """
import sys
from ctypes import CDLL, Structure, byref, c_char, c_int, c_long, c_ulong, c_void_p
class Message(Structure):
    _fields_ = [("type", c_int), ("serial", c_ulong), ("send_event", c_int), ("display", c_void_p),
                ("window", c_ulong), ("name", c_ulong), ("format", c_int), ("data", c_long * 5), ("rest", c_char * 96)]
x11, window = CDLL("libX11.so.6"), c_ulong(int(sys.argv[1]))
x11.XOpenDisplay.restype, x11.XInternAtom.restype = c_void_p, c_ulong
display = c_void_p(x11.XOpenDisplay(None))
delete = (c_long * 5)(x11.XInternAtom(display, b"WM_DELETE_WINDOW", 0))
message = Message(33, 0, 1, display, window, x11.XInternAtom(display, b"WM_PROTOCOLS", 0), 32, delete)
x11.XSendEvent(display, window, 0, c_long(0), byref(message))
x11.XCloseDisplay(display)
"""


@pytest.fixture(scope="module")
def display() -> Iterator[dict[str, str]]:
    """The environment of a process that sees an X server of its own."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("Xvfb and xdotool are needed to show a window and to press its keys")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield {**os.environ, "DISPLAY": f":{server.stdout.readline().strip()}"}
        server.terminate()


def started(environment: dict[str, str], runs: int = 1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SHOW, str(runs)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def window(environment: dict[str, str]) -> str:
    """The id of the window, whose picture is shown by now."""
    find = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "window: front"]
    return subprocess.run(find, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def press(key: str, environment: dict[str, str]) -> None:
    target = window(environment)
    subprocess.run(["xdotool", "key", "--window", target, key], env=environment, check=True, capture_output=True)


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_a_key_ends_it(display: dict[str, str], key: str) -> None:
    with started(display) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        press(key, display)
        assert show.communicate(timeout=20) == ("ended\n", "")
        assert show.returncode == 0


def test_closing_the_window_ends_it(display: dict[str, str]) -> None:
    with started(display) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        subprocess.run([sys.executable, "-c", CLOSE, window(display)], env=display, check=True)
        assert show.communicate(timeout=20) == ("ended\n", "")


def test_a_second_graph_of_a_process_has_a_window_too(display: dict[str, str]) -> None:
    with started(display, runs=2) as show:
        assert show.stdout is not None
        for _ in range(2):
            assert show.stdout.readline() == "shown\n"
            press("q", display)
            assert show.stdout.readline() == "ended\n"
        assert show.wait(timeout=20) == 0


def test_the_picture_is_on_the_screen(display: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("import"):
        pytest.skip("ImageMagick's import is needed to take a screenshot")
    with started(display) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        shot = tmp_path / "shot.png"
        subprocess.run(["import", "-window", window(display), str(shot)], env=display, check=True, timeout=20)
        press("q", display)
        show.communicate(timeout=20)
    picture = cv2.imread(str(shot))
    assert picture is not None
    assert picture.shape == (100, 150, 3)
    np.testing.assert_allclose(picture[50, [30, 120]], [(0, 0, 250), (0, 250, 0)], atol=2)


@pytest.mark.parametrize(
    ("display_name", "reason"),
    [("", "DISPLAY is not set; run on a desktop, or write to a file instead"), (":987", "the display :987 does not")],
)
def test_no_display(display_name: str, reason: str) -> None:
    with started({**os.environ, "DISPLAY": display_name}) as show:
        out, err = show.communicate(timeout=20)
    assert out.startswith(f"no window can be shown: {reason}")
    assert (out.count("\n"), err, show.returncode) == (1, "", 0)


def test_the_package_loads_opencv_before_pyav() -> None:
    """The other way round, Qt loads PyAV's libxcb, and the first window hangs (PyAV issue 978)."""
    script = "import sys, stream_seg.kinds; names = list(sys.modules); print(names.index('cv2') < names.index('av'))"
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout == "True\n"


def test_pyav_before_opencv_is_refused() -> None:
    script = (
        "import av, cv2; from stream_seg.errors import OutputError; from stream_seg.stages.show import Show\n"
        "try: next(Show()(iter([])))\n"
        "except OutputError as error: print(error)"
    )
    environment = {**os.environ, "DISPLAY": ":0"}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert "PyAV was imported before OpenCV" in run.stdout
