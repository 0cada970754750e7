"""Run the page in tests: the stage `serve` on a free port of 127.0.0.1, with an HTTP client."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any

import httpx
import numpy as np
from prometheus_client import CollectorRegistry

from stream_seg.datasets.palettes import CAMVID
from stream_seg.errors import StreamSegError
from stream_seg.frame import EngineInfo, Frame, Semantic
from stream_seg.stages.base import Context
from stream_seg.stages.serve import Serve
from tests.support.frames import make_frame

ENGINE = EngineInfo("road", "openvino", "int8", "CPU")


def make_segmented_frame(
    seq: int, *, stream: str = "front", size: tuple[int, int] = (90, 160), grey: int | None = None
) -> Frame:
    """Return a frame whose upper 4/9 are sky and whose lower 5/9 are road; `grey` makes its image uniform."""
    labels = np.full((9, 16), CAMVID.index("sky"), np.uint8)
    labels[4:] = CAMVID.index("road")
    plain = make_frame(seq, stream=stream, size=size)
    image = plain.image if grey is None else np.full_like(plain.image, grey)
    return replace(plain, image=image, semantic=Semantic(CAMVID, ENGINE, (9, 16), label_map=labels))


@dataclass
class PageClient:
    """A running page: `put` passes a frame to the stage, `get` and `http` send requests."""

    stage: Serve
    registry: CollectorRegistry
    url: str = ""
    http: httpx.Client = field(default_factory=httpx.Client)
    yielded: list[Frame] = field(default_factory=list)
    _frames: SimpleQueue[Frame | None] = field(default_factory=SimpleQueue)

    def put(self, frame: Frame) -> None:
        """Pass a frame to the stage and wait until the stage has yielded it."""
        before = len(self.yielded)
        self._frames.put(frame)
        wait_for(lambda: len(self.yielded) > before)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """Send a GET request."""
        return self.http.get(path, **options)

    def end_stream(self) -> None:
        """End the stage's frames, and with them the server, unless it stays."""
        self._frames.put(None)

    def run_stage(self) -> None:
        """Run the stage over the frames of `put` until `end_stream`."""
        for yielded in self.stage(iter(self._frames.get, None)):
            self.yielded.append(yielded)


@contextmanager
def run_page(
    *,
    headers: dict[str, str] | None = None,
    verify: ssl.SSLContext | bool = True,
    stalls: Callable[[], Sequence[str]] = tuple,
    **keys: Any,
) -> Iterator[PageClient]:
    """Run a page while the body runs. `keys` are those of the stage. Raise the stage's error if it fails to start."""
    messages, registry = SimpleQueue[str](), CollectorRegistry()
    ended = Event()
    context = Context(announce=messages.put, registry=registry, stopping=ended.is_set, stalls=stalls)
    stage = Serve(**{"port": 0, **keys}).bind(context)
    page = PageClient(stage, registry)
    errors: list[StreamSegError] = []

    def run() -> None:
        try:
            page.run_stage()
        except StreamSegError as error:
            errors.append(error)

    thread = Thread(target=run, name="stage serve")
    thread.start()
    wait_for(lambda: bool(errors) or not messages.empty(), 15)
    if errors:
        raise errors[0]
    page.url = messages.get().removeprefix("page at ").replace("0.0.0.0", "127.0.0.1")
    page.http.close()
    with httpx.Client(base_url=page.url, headers=headers, verify=verify, timeout=10, trust_env=False) as page.http:
        try:
            yield page
        finally:
            ended.set()
            page.end_stream()
            thread.join(5)
    assert not thread.is_alive()


@contextmanager
def feed_frames(page: PageClient) -> Iterator[None]:
    """Put 30 frames per second, each with another grey, while the body runs."""
    end = Event()

    def feed() -> None:
        start_s, seq = time.monotonic(), 0
        while not end.wait(max(0.0, start_s + seq / 30 - time.monotonic())):
            page.put(make_segmented_frame(seq, grey=(seq * 8) % 256))
            seq += 1

    thread = Thread(target=feed, name="feed frames")
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join(5)


def wait_for(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Poll a condition every 5 ms. Fail after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not true within {timeout_s} s"
        time.sleep(0.005)
