"""Live streams to browsers as multipart/x-mixed-replace: each viewer gets the newest image at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from stream_seg.web.renderer import Renderer, ViewKey

STALL_S = 4.0
"""A viewer that reads nothing for this long is disconnected: within 5 seconds, counting what its socket buffers."""
KEEPALIVE_S = 2.0
"""Without a new image for this long, the last one is sent again, which detects dead connections."""
REPEAT_S = 0.1
"""Chromium shows an image when the next one begins, so without a new one this soon, the last is sent once more."""
BOUNDARY = b"frame"


@dataclass
class MjpegStream:
    """The newest JPEG of a view. Only used in the server's event loop."""

    jpeg: bytes | None = None
    number: int = 0
    viewers: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, jpeg: bytes) -> None:
        """Replace the newest JPEG and wake the viewers."""
        self.jpeg, self.number = jpeg, self.number + 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_for_other(self, number: int) -> None:
        """Wait for another JPEG than `number`."""
        while self.jpeg is None or self.number == number:
            await self._changed.wait()


@dataclass
class MjpegStreams:
    """The views that somebody watches. `abort` closes a connection without sending what is buffered for it."""

    renderer: Renderer
    max_viewers: int
    abort: Callable[[Scope], None]
    stall_s: float = STALL_S
    viewers: int = 0
    _streams: dict[ViewKey, MjpegStream] = field(default_factory=dict)

    def publish(self, key: ViewKey, jpeg: bytes) -> None:
        """Pass a JPEG of the renderer to the viewers of its view."""
        if key in self._streams:
            self._streams[key].publish(jpeg)

    @property
    def full(self) -> bool:
        """True when the viewer limit is reached."""
        return self.viewers >= self.max_viewers

    async def send(self, key: ViewKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a view to one viewer until it disconnects, or is disconnected because it does not read."""
        stream = self._streams.setdefault(key, MjpegStream())
        self.viewers, stream.viewers = self.viewers + 1, stream.viewers + 1
        disconnected = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            with self.renderer.watch(key):
                await self._send_images(stream, disconnected, send)
        except asyncio.TimeoutError:
            self.abort(scope)
            await asyncio.wait((disconnected,), timeout=1)
        finally:
            disconnected.cancel()
            self.viewers, stream.viewers = self.viewers - 1, stream.viewers - 1
            if not stream.viewers:
                del self._streams[key]

    async def _send_images(self, stream: MjpegStream, disconnected: asyncio.Future[None], send: Send) -> None:
        content_type = b"multipart/x-mixed-replace; boundary=" + BOUNDARY
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        await send({"type": "http.response.body", "body": b"--" + BOUNDARY + b"\r\n", "more_body": True})
        number, timeout_s = 0, KEEPALIVE_S
        while not disconnected.done():
            other = asyncio.ensure_future(stream.wait_for_other(number))
            await asyncio.wait((other, disconnected), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            other.cancel()
            if stream.jpeg is None or disconnected.done():
                continue
            number, timeout_s = stream.number, KEEPALIVE_S if number == stream.number else REPEAT_S
            await asyncio.wait_for(
                send({"type": "http.response.body", "body": _encode_part(stream.jpeg), "more_body": True}), self.stall_s
            )


def _encode_part(jpeg: bytes) -> bytes:
    # The boundary that ends a part is sent with it: a browser shows a part once it has seen the end.
    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
    return head + jpeg + b"\r\n--" + BOUNDARY + b"\r\n"


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
