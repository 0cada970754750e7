"""The page at work for tests: a real server on a free port of 127.0.0.1, fed by hand."""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import StreamSegError
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.serve import Serve
from tests.support.frames import frame

ENGINE = EngineInfo("road", "openvino", "int8", "CPU")


def segmented(seq: int, *, stream: str = "front", size: tuple[int, int] = (90, 160), grey: int | None = None) -> Frame:
    """A grey picture whose upper half is sky and whose lower half is road."""
    labels = np.full((9, 16), CAMVID.index("sky"), np.uint8)
    labels[4:] = CAMVID.index("road")
    taken = frame(seq, stream=stream, size=size)
    image = taken.image if grey is None else np.full_like(taken.image, grey)
    return replace(taken, image=image, semantic=Semantic(CAMVID, ENGINE, (9, 16), verdict=labels))


@dataclass
class Shown:
    """A running page. `put` gives it a frame; `http` asks it."""

    stage: Serve
    address: str
    http: httpx.Client
    _frames: SimpleQueue[Frame | None] = field(default_factory=SimpleQueue)
    yielded: list[Frame] = field(default_factory=list)

    def put(self, given: Frame) -> None:
        """Give a frame and wait until the stage has dealt with it."""
        before = len(self.yielded)
        self._frames.put(given)
        until(lambda: len(self.yielded) > before)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Ask for a path."""
        return self.http.get(path, **options)


@contextmanager
def shown(
    *, headers: dict[str, str] | None = None, verify: ssl.SSLContext | bool = True, **keys: Any
) -> Iterator[Shown]:
    """A page on a free port while the body runs."""
    stage, addresses = Serve(**{"port": 0, **keys}), SimpleQueue[str]()
    stage.announce = addresses.put
    page = Shown(stage, "", httpx.Client())
    failed: list[StreamSegError] = []

    def work() -> None:
        try:
            for given in stage(iter(page._frames.get, None)):
                page.yielded.append(given)
        except StreamSegError as error:
            failed.append(error)

    thread = Thread(target=work, name="stage serve")
    thread.start()
    until(lambda: bool(failed) or not addresses.empty(), 15)
    if failed:
        raise failed[0]
    page.address = addresses.get().replace("0.0.0.0", "127.0.0.1")
    page.http.close()
    with httpx.Client(base_url=page.address, headers=headers, verify=verify, timeout=10, trust_env=False) as page.http:
        try:
            yield page
        finally:
            page._frames.put(None)
            thread.join(5)
    assert not thread.is_alive()


@contextmanager
def fed(page: Shown, *, rate: float = 30.0, **keys: Any) -> Iterator[deque[float]]:
    """Give a page a moving stream while the body runs; gives the seconds that each frame took the stage."""
    end, took = Event(), deque[float]()

    def feed() -> None:
        began, seq = time.monotonic(), 0
        while not end.wait(max(0.0, began + seq / rate - time.monotonic())):
            given = segmented(seq, grey=(seq * 8) % 256, **keys)
            start = time.monotonic()
            page.put(given)
            took.append(time.monotonic() - start)
            seq += 1

    thread = Thread(target=feed, name="feeds the page")
    thread.start()
    try:
        yield took
    finally:
        end.set()
        thread.join(5)


def until(there: Callable[[], bool], within_s: float = 10.0) -> None:
    """Look every 5 ms until it is there."""
    end = time.monotonic() + within_s
    while not there():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
