"""Moving pictures to browsers: multipart/x-mixed-replace, each viewer at its own pace, always the newest picture."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from stream_seg.web.renderer import Darkroom, Watched

STALL_S = 4.0
"""A viewer that reads nothing for so long is dropped; with what its socket holds before that, within 5 seconds."""
QUIET_S = 2.0
"""Where no new picture comes for so long, the last is sent again: so a dead connection is noticed."""
AGAIN_S = 0.1
"""Chromium shows a picture when the next one begins: where none follows so soon, the last is sent once more."""
BOUNDARY = b"frame"


@dataclass
class Feed:
    """The newest picture of a view; everything here happens in the server's loop."""

    picture: bytes | None = None
    number: int = 0
    viewers: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def show(self, picture: bytes) -> None:
        """Give the viewers a newer picture."""
        self.picture, self.number = picture, self.number + 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def newer(self, than: int) -> None:
        """Wait for another picture than number `than`."""
        while self.picture is None or self.number == than:
            await self._changed.wait()


@dataclass
class Feeds:
    """All views that anybody watches. `abort` closes a connection whatever is still to be sent on it."""

    darkroom: Darkroom
    limit: int
    abort: Callable[[Scope], None]
    stall_s: float = STALL_S
    viewers: int = 0
    _feeds: dict[Watched, Feed] = field(default_factory=dict)

    def show(self, watched: Watched, picture: bytes) -> None:
        """A picture from the darkroom."""
        if watched in self._feeds:
            self._feeds[watched].show(picture)

    @property
    def full(self) -> bool:
        """Whether another viewer would be too many."""
        return self.viewers >= self.limit

    async def send(self, watched: Watched, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a view to one viewer until it leaves, or is dropped because it does not read."""
        feed = self._feeds.setdefault(watched, Feed())
        self.viewers, feed.viewers = self.viewers + 1, feed.viewers + 1
        gone = asyncio.ensure_future(_left(receive))
        try:
            with self.darkroom.watching(watched):
                await self._send(feed, gone, send)
        except asyncio.TimeoutError:
            self.abort(scope)
            await asyncio.wait((gone,), timeout=1)
        finally:
            gone.cancel()
            self.viewers, feed.viewers = self.viewers - 1, feed.viewers - 1
            if not feed.viewers:
                del self._feeds[watched]

    async def _send(self, feed: Feed, gone: asyncio.Future[None], send: Send) -> None:
        kind = b"multipart/x-mixed-replace; boundary=" + BOUNDARY
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": b"--" + BOUNDARY + b"\r\n", "more_body": True})
        number, quiet_s = 0, QUIET_S
        while not gone.done():
            newer = asyncio.ensure_future(feed.newer(number))
            await asyncio.wait((newer, gone), timeout=quiet_s, return_when=asyncio.FIRST_COMPLETED)
            newer.cancel()
            if feed.picture is None or gone.done():
                continue
            number, quiet_s = feed.number, QUIET_S if number == feed.number else AGAIN_S
            await asyncio.wait_for(
                send({"type": "http.response.body", "body": _part(feed.picture), "more_body": True}), self.stall_s
            )


def _part(picture: bytes) -> bytes:
    # The boundary that ends a part goes with it: a browser shows a part when it has seen its end.
    head = b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
    return head + picture + b"\r\n--" + BOUNDARY + b"\r\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
