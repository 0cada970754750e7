"""Live streams to browsers as multipart/x-mixed-replace: each viewer gets the newest image at its own pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
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
    """The newest JPEG of a view. Belongs to the server's event loop."""

    jpeg: bytes = b""
    number: int = 0
    viewers: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def publish(self, jpeg: bytes) -> None:
        self.jpeg, self.number = jpeg, self.number + 1
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass
class MjpegStreams:
    """The views that somebody watches. `abort` closes a connection without sending what is buffered for it."""

    renderer: Renderer
    max_viewers: int
    abort: Callable[[Scope], None]
    viewers: int = 0
    _streams: dict[ViewKey, MjpegStream] = field(default_factory=dict)

    def publish(self, key: ViewKey, jpeg: bytes) -> None:
        """Pass a JPEG to the viewers of its view. Callable from any thread."""
        with suppress(KeyError, RuntimeError):  # the last viewer has just left, or the event loop has been closed
            stream = self._streams[key]
            stream.loop.call_soon_threadsafe(stream.publish, jpeg)

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
            if number == stream.number:
                changed = asyncio.ensure_future(stream.changed.wait())
                await asyncio.wait((changed, disconnected), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
            if stream.number == 0 or disconnected.done():
                continue
            number, timeout_s = stream.number, KEEPALIVE_S if number == stream.number else REPEAT_S
            # The boundary that ends a part is sent with it: a browser shows a part once it has seen the end.
            head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(stream.jpeg)
            part = head + stream.jpeg + b"\r\n--" + BOUNDARY + b"\r\n"
            await asyncio.wait_for(send({"type": "http.response.body", "body": part, "more_body": True}), STALL_S)


async def _wait_for_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
