"""One edge of the graph: frames one way, credits the other, over ZeroMQ DEALER and ROUTER.

    stage thread --put--> [outbox] --sender thread--> DEALER ==== ROUTER --frames()--> stage thread
                                                        <--- credit ---

Neither high-water marks nor ZMQ_CONFLATE bound the age of a frame (the kernel's socket buffers alone hold hundreds).
Therefore the receiver grants credits, and the sender never sends more frames than it has credits:

* `latest`: one credit, granted when the receiving stage asks for its next frame. The outbox holds one frame; a newer
  frame replaces it, counted as a drop with reason "superseded". A received frame is at most one frame interval old.
* `every`: a window of credits, renewed frame by frame. The outbox is bounded and `put` waits, so no frame is lost.

Every message is one part. To the receiver: HELLO; FRAME, number (u64), body; END. To the sender: CREDIT, the highest
number that may be sent (u64, counted from 1, cumulative, so that a repeated credit is harmless); STOP. The body depends
on the transport: a `Codec` packs and unpacks frames. Within a process the body is a reference.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from threading import Condition, Lock, Thread
from typing import Protocol, TypeAlias

import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link_stats import LinkStats
from stream_seg.stages.base import Policy

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

HELLO, FRAME, END, CREDIT, STOP = b"H", b"F", b"E", b"C", b"S"
NUMBER = struct.Struct("!Q")
WINDOW: dict[Policy, int] = {"latest": 1, "every": 2}
WAIT_MS = 100
"""Interval at which a waiting end checks whether it was stopped locally."""


class Codec(Protocol):
    """Converts frames to message bodies: `pack` on the sending side, `unpack` once on the receiving side."""

    def pack(self, frame: Frame, /) -> bytes: ...

    def unpack(self, body: bytes, /) -> Frame: ...


class ByReference:
    """The codec within a process: the body is the key of a frame in a shared dictionary."""

    def __init__(self) -> None:
        self._frames: dict[bytes, Frame] = {}
        self._keys = count()

    def pack(self, frame: Frame) -> bytes:
        key = NUMBER.pack(next(self._keys))
        self._frames[key] = frame
        return key

    def unpack(self, body: bytes) -> Frame:
        return self._frames.pop(body)


class Sender:
    """The sending end. `put`, `end` and `stop` may be called from any thread.

    A separate thread owns the socket, so that a credit is answered with the newest frame at once while the stage works
    on the next.
    """

    def __init__(self, stats: LinkStats, codec: Codec) -> None:
        self._stats = stats
        self._codec = codec
        self._outbox: deque[Frame] = deque()
        self._changed = Condition()
        self._ended = False  # nothing more will be put
        self._stopped = False  # nothing more will be taken

    def start(self, context: Context, endpoint: str) -> Thread:
        """Connect to the receiver and start the sender thread."""
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        socket.setsockopt(zmq.SNDTIMEO, WAIT_MS)
        socket.setsockopt(zmq.ROUTING_ID, self._stats.name.encode())
        socket.connect(endpoint)
        thread = Thread(target=self._send_all, args=(socket,), name=f"link {self._stats.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no further thread
            socket.close()
            raise
        return thread

    def put(self, frame: Frame) -> bool:
        """Hand a frame to the link. Return False, with the frame dropped as "stopped", once either end has closed."""
        with self._changed:
            self._stats.enter()
            if self._stats.policy == "every":
                self._changed.wait_for(lambda: not self._outbox or self._ended or self._stopped)
            if self._ended or self._stopped:
                self._stats.drop("stopped")
                return False
            if self._outbox:
                self._outbox.popleft()
                self._stats.drop("superseded")
            self._outbox.append(frame)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """End the stream: frames already put are delivered, then the receiver sees the end of the stream."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop at once and drop undelivered frames."""
        with self._changed:
            self._stopped = True
            self._outbox.clear()
            self._changed.notify_all()

    def _send_all(self, socket: zmq.Socket[bytes]) -> None:
        with socket:
            self._transmit(socket, HELLO)
            granted = sent = 0
            while not self._stopped:
                granted = max(granted, self._credit(socket, wait=granted <= sent))
                if granted <= sent:
                    continue
                frame = self._take()
                if frame is None:
                    self._transmit(socket, END)
                    break
                sent += 1
                self._transmit(socket, FRAME + NUMBER.pack(sent) + self._codec.pack(frame))
            while not self._stopped:  # the receiver closes first: closing now could lose sent frames
                self._credit(socket, wait=True)

    def _transmit(self, socket: zmq.Socket[bytes], message: bytes) -> None:
        """Send a message, unless the sender is stopped: a DEALER without a peer would wait for ever."""
        while not self._stopped:
            try:
                socket.send(message)
                return
            except zmq.Again:
                self._credit(socket, wait=False)

    def _credit(self, socket: zmq.Socket[bytes], *, wait: bool) -> int:
        """Return the highest frame number granted by the waiting messages; 0 without one."""
        granted = 0
        while wait or int(socket.get(zmq.EVENTS)) & zmq.POLLIN:
            try:
                message = socket.recv()
            except zmq.Again:
                break
            if message == STOP:
                self.stop()
                break
            granted, wait = NUMBER.unpack(message[1:])[0], False
        return granted

    def _take(self) -> Frame | None:
        """Return the next frame to send, None at the end of the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._outbox or self._ended or self._stopped)
            frame = self._outbox.popleft() if self._outbox else None
            self._changed.notify_all()
            return frame


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
