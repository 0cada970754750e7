"""Tests of what the OpenVINO backend leaves behind in a process."""

from __future__ import annotations

import subprocess
import sys

CLOSED_IN_A_THREAD = """
import gc, os, signal
from threading import Thread
from stream_seg.engines.open import open_engine
from stream_seg.network.network import open_network

engines = [open_engine(open_network("road"), backend="openvino")]

def close():
    engines.pop().close()
    gc.collect()

thread = Thread(target=close)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_is_handled_after_an_engine_of_this_thread_was_closed_in_another() -> None:
    done = subprocess.run([sys.executable, "-c", CLOSED_IN_A_THREAD], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
