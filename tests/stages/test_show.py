"""Test `show` on an X server without a screen (Xvfb), each time in a separate process."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from stream_seg.types import Image

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

count = int(sys.argv[2])

def frames():
    seq = 0
    while seq != count:
        yield Frame("front", seq, seq, Fraction(1, 50), 0, image)
        seq += 1
        if seq == 10:
            print("shown", flush=True)
        time.sleep(0.02)

def run(title):
    try:
        for _ in Show(title=title, max_width=150, stay=True)(frames()):
            pass
        print("ended", flush=True)
    except OutputError as error:
        print(error, flush=True)

for number in range(int(sys.argv[1])):  # stages run in threads, a new one for every graph
    thread = threading.Thread(target=run, args=(f"window {number}",))
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
    """Yield the environment of a process with its own X server."""
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("Xvfb and xdotool are needed to show a window and to press its keys")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "640x480x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        yield {**os.environ, "DISPLAY": f":{server.stdout.readline().strip()}"}
        server.terminate()


def start(environment: dict[str, str], runs: int = 1, *, frames: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SHOW, str(runs), str(frames)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def window(environment: dict[str, str], number: int = 0) -> str:
    """Return the id of a window that shows its image."""
    find = ["xdotool", "search", "--sync", "--onlyvisible", "--name", f"window {number}: front"]
    return subprocess.run(find, env=environment, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def press(key: str, show: subprocess.Popen[str], environment: dict[str, str], number: int = 0) -> str:
    """Press a key in a window until the process prints a line; return it. Keys are lost until the window listens."""
    assert show.stdout is not None
    target = window(environment, number)
    for _ in range(40):
        subprocess.run(["xdotool", "key", "--window", target, key], env=environment, check=False, capture_output=True)
        if select.select([show.stdout], [], [], 0.5)[0]:
            return show.stdout.readline()
    raise AssertionError(f"the window did not react to {key}")


@pytest.mark.parametrize("key", ["q", "Escape"])
def test_a_key_ends_the_run(display: dict[str, str], key: str) -> None:
    with start(display) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        assert press(key, show, display) == "ended\n"
        assert show.communicate(timeout=20) == ("", "")
        assert show.returncode == 0


def test_the_last_image_stays_until_q(display: dict[str, str]) -> None:
    with start(display, frames=10) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        assert press("q", show, display) == "ended\n"


def test_closing_the_window_ends_the_run(display: dict[str, str]) -> None:
    with start(display) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        subprocess.run([sys.executable, "-c", CLOSE, window(display)], env=display, check=True)
        assert show.communicate(timeout=20) == ("ended\n", "")


def test_a_second_graph_of_a_process_opens_a_window(display: dict[str, str]) -> None:
    with start(display, runs=2) as show:
        assert show.stdout is not None
        for number in range(2):
            assert show.stdout.readline() == "shown\n"
            assert press("q", show, display, number) == "ended\n"
        assert show.wait(timeout=20) == 0


def test_the_image_is_on_the_screen(display: dict[str, str], tmp_path: Path) -> None:
    if not shutil.which("import"):
        pytest.skip("ImageMagick's import is needed to take a screenshot")
    with start(display) as show:
        assert show.stdout is not None
        assert show.stdout.readline() == "shown\n"
        end = time.monotonic() + 20
        while not is_red_and_green(screenshot(tmp_path / "shot.png", display)):
            assert time.monotonic() < end, "the image did not appear on the screen"
        assert press("q", show, display) == "ended\n"


def screenshot(path: Path, environment: dict[str, str]) -> Image:
    command = ["import", "-window", window(environment), str(path)]
    subprocess.run(command, env=environment, check=True, timeout=20)
    return np.asarray(cv2.imread(str(path)), np.uint8)


def is_red_and_green(image: Image) -> bool:
    assert image.shape == (100, 150, 3)
    return bool(np.abs(image[50, [30, 120]].astype(int) - [(0, 0, 250), (0, 250, 0)]).max() <= 2)


@pytest.mark.parametrize(
    ("display_name", "reason"),
    [("", "DISPLAY is not set; run on a desktop, or write to a file instead"), (":987", "the display :987 does not")],
)
def test_no_display(display_name: str, reason: str) -> None:
    with start({**os.environ, "DISPLAY": display_name}) as show:
        out, err = show.communicate(timeout=20)
    assert out.startswith(f"cannot show a window: {reason}")
    assert (out.count("\n"), err, show.returncode) == (1, "", 0)


def test_the_package_loads_opencv_before_pyav() -> None:
    """In the other order Qt loads PyAV's libxcb, and the first window hangs (PyAV issue 978)."""
    script = "import sys, stream_seg.sources.container; n = list(sys.modules); print(n.index('cv2') < n.index('av'))"
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
