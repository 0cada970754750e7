"""The receiving end of all links into a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Lock

import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link import CREDIT, END, FRAME, HELLO, NUMBER, STOP, WAIT_MS, WINDOW, Codec, Context
from stream_seg.runtime.link_stats import LinkStats


class Receiver:
    """The receiving end of all links into one stage. Owned by one thread; only `abort` may be called from another.

    With several senders, `latest` buffers one frame of each, so the age bound grows by one stage time per sender.
    """

    def __init__(self, links: Sequence[LinkStats], codec: Codec) -> None:
        self._links = {link.name.encode(): link for link in links}
        self._codec = codec
        self._open = set(self._links)
        self._taken: dict[bytes, int] = {}  # frames of each sender since its HELLO
        self._arrived: tuple[bytes, LinkStats, Frame] | None = None  # a frame that the stage has not taken yet
        self._lock = Lock()  # a frame is either delivered or dropped
        self._bound = self._aborted = False
        self.keep_open = False  # wait for further senders, although every one has ended

    def admit(self, link: LinkStats) -> None:
        """Expect one more sender, which has not started yet. Callable from any thread."""
        self._links[link.name.encode()] = link
        self._open.add(link.name.encode())

    def dismiss(self, link: LinkStats) -> None:
        """Stop expecting frames of a stopped sender. Callable from any thread.

        Its frames under way are dropped as "stopped", not mistaken for those of a new sender of the same name.
        """
        with self._lock:
            self._taken.pop(link.name.encode(), None)
            link.drop_rest()
        self._open.discard(link.name.encode())

    @property
    def ended(self) -> bool:
        """True once every sender has ended its stream."""
        return not self._open

    def bind(self, context: Context, endpoint: str) -> None:
        """Bind the socket; senders may start now. `close` follows."""
        self._socket = context.socket(zmq.ROUTER)
        self._bound = True
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a replaced source has the name of the one before
        self._socket.bind(endpoint)

    def abort(self) -> None:
        """End `frames` at the next frame, without waiting for the end of the senders."""
        self._aborted = True

    def ready(self) -> bool:
        """Return whether a frame has arrived. For the thread of `frames`."""
        while self._arrived is None and int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            self._receive()
        return self._arrived is not None

    def frames(self) -> Iterator[Frame]:
        """Yield the frames as they arrive, until every sender has ended."""
        while (self._open or self.keep_open or self._arrived) and not self._aborted:
            if self._arrived is None:
                with suppress(zmq.Again):
                    self._receive()
                continue
            (identity, link, frame), self._arrived = self._arrived, None
            if self._deliver(identity, link):
                yield frame
                self._grant(identity, link)  # now that the stage asks for its next frame

    def _receive(self) -> None:
        """Handle a message; a frame is kept in `_arrived`. Raises zmq.Again if none comes within WAIT_MS."""
        identity, message, *more = self._socket.recv_multipart()
        link, kind = self._links.get(identity), message[:1]
        if link is None or more:
            return  # not a link of this stage
        if kind == HELLO:
            self._taken[identity] = 0
            self._grant(identity, link)
        elif kind == FRAME:
            self._arrived = identity, link, self._codec.unpack(message[1 + NUMBER.size :])
        elif kind == END and self._taken.pop(identity, None) is not None:  # else it is from a dismissed sender
            self._open.discard(identity)
            self._socket.send_multipart([identity, STOP])

    def _grant(self, identity: bytes, link: LinkStats) -> None:
        credit = CREDIT + NUMBER.pack(self._taken.get(identity, 0) + WINDOW[link.policy])
        self._socket.send_multipart([identity, credit])

    def _deliver(self, identity: bytes, link: LinkStats) -> bool:
        """Count a frame as delivered and return True, unless its sender was dismissed."""
        with self._lock:
            if identity not in self._taken:
                return False
            self._taken[identity] += 1
            link.deliver()
            return True

    def close(self) -> None:
        """Tell the senders to stop, and close the socket, if it was bound."""
        if not self._bound:
            return
        for identity in tuple(self._links):
            self._socket.send_multipart([identity, STOP])
        self._socket.close()
