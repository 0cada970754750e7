"""One edge of the graph: frames one way, credits the other, over ZeroMQ DEALER and ROUTER.

    stage thread --put--> [outbox] --sender thread--> DEALER ==== ROUTER --frames()--> stage thread
                                                        <--- credit ---

Neither high-water marks nor ZMQ_CONFLATE bound the age of a frame (the kernel's socket buffers alone hold hundreds), so
the receiver says how many frames it is ready for, and the sender never sends more:

* `latest`: one credit, given when the receiving stage asks for its next frame. The outbox holds one frame; a newer one
  replaces it, which is a drop with reason "superseded". The frame that is picked up is at most one interval old.
* `every`: a window of credits, renewed frame by frame. The outbox is bounded too, and `put` waits: nothing is lost.

Every message is one part. To the receiver: HELLO; FRAME, number (u64), body; END. To the sender: CREDIT, the highest
number that may be sent (u64, counted from 1, cumulative, so a repeated one does no harm); STOP. What the body is, the
transport decides: a `Codec` makes it of a frame and back. Within a process that is a reference.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from threading import Condition, Lock, Thread
from typing import Protocol, TypeAlias

import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link_stats import Link
from stream_seg.stages.base import Policy

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"

HELLO, FRAME, END, CREDIT, STOP = b"H", b"F", b"E", b"C", b"S"
NUMBER = struct.Struct("!Q")
WINDOW: dict[Policy, int] = {"latest": 1, "every": 2}
WAIT_MS = 100
"""How often a waiting end looks whether it was stopped from its own side."""


class Codec(Protocol):
    """How a frame travels: `pack` on the sending side, `unpack` once on the receiving side."""

    def pack(self, frame: Frame, /) -> bytes: ...

    def unpack(self, body: bytes, /) -> Frame: ...


class ByReference:
    """The codec within a process: the body is a key to the frame itself."""

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

    The socket belongs to a thread of its own, so that a credit is answered with the newest frame at once, while the
    stage works on the next.
    """

    def __init__(self, link: Link, codec: Codec) -> None:
        self._link = link
        self._codec = codec
        self._outbox: deque[Frame] = deque()
        self._changed = Condition()
        self._ended = False  # nothing more will be put
        self._stopped = False  # nothing more will be taken

    def start(self, context: Context, endpoint: str) -> Thread:
        """Connect to the receiver and begin to send."""
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        socket.setsockopt(zmq.SNDTIMEO, WAIT_MS)
        socket.setsockopt(zmq.ROUTING_ID, self._link.name.encode())
        socket.connect(endpoint)
        thread = Thread(target=self._send_all, args=(socket,), name=f"link {self._link.name}", daemon=True)
        thread.start()
        return thread

    def put(self, frame: Frame) -> bool:
        """Give a frame to the link. False, and the frame is dropped as "stopped", once either end has closed."""
        with self._changed:
            self._link.enter()
            if self._link.policy == "every":
                self._changed.wait_for(lambda: not self._outbox or self._ended or self._stopped)
            if self._ended or self._stopped:
                self._link.drop("stopped")
                return False
            if self._outbox:
                self._outbox.popleft()
                self._link.drop("superseded")
            self._outbox.append(frame)
            self._changed.notify_all()
            return True

    def end(self) -> None:
        """No more frames: what was put is still delivered, then the receiver sees the end of the stream."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Give up: what was not delivered will not be."""
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
            while not self._stopped:  # closing now could lose what was sent: the receiver closes first
                self._credit(socket, wait=True)

    def _transmit(self, socket: zmq.Socket[bytes], message: bytes) -> None:
        """Send, unless the receiver has gone: a DEALER without a peer would wait for one for ever."""
        while not self._stopped:
            try:
                socket.send(message)
                return
            except zmq.Again:
                self._credit(socket, wait=False)

    def _credit(self, socket: zmq.Socket[bytes], *, wait: bool) -> int:
        """The highest number granted among the messages at hand; 0 without one."""
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
        """The next frame to send, None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._outbox or self._ended or self._stopped)
            frame = self._outbox.popleft() if self._outbox else None
            self._changed.notify_all()
            return frame


class Receiver:
    """The receiving end: all links into one stage. Belongs to one thread; only `abort` may come from another.

    With several senders `latest` has one frame of each at hand, so the age bound grows by one stage time per sender.
    """

    def __init__(self, links: Sequence[Link], codec: Codec) -> None:
        self._links = {link.name.encode(): link for link in links}
        self._codec = codec
        self._open = set(self._links)
        self._taken: dict[bytes, int] = {}  # frames of each sender since its hello
        self._lock = Lock()  # a frame is delivered or written off
        self._aborted = False
        self.kept = False  # wait for further senders, although every one has ended

    def admit(self, link: Link) -> None:
        """Expect one more sender, before it starts. From any thread."""
        self._links[link.name.encode()] = link
        self._open.add(link.name.encode())

    def dismiss(self, link: Link) -> None:
        """Expect nothing more of a sender that was stopped: what it had on the way is dropped as "stopped", and not
        taken for another's of its name. From any thread."""
        with self._lock:
            self._taken.pop(link.name.encode(), None)
            link.settle()
        self._open.discard(link.name.encode())

    @property
    def ended(self) -> bool:
        """Every sender has said its last."""
        return not self._open

    def bind(self, context: Context, endpoint: str) -> None:
        """Open the door; senders may start now. `close` follows."""
        self._socket = context.socket(zmq.ROUTER)
        self._socket.setsockopt(zmq.LINGER, 1000)
        self._socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        self._socket.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a source that was replaced has the name of the one before
        self._socket.bind(endpoint)

    def abort(self) -> None:
        """End `frames` at the next frame, without waiting for the senders' end."""
        self._aborted = True

    def frames(self) -> Iterator[Frame]:
        """The frames as they come; ends when every sender has ended."""
        while (self._open or self.kept) and not self._aborted:
            try:
                identity, message, *more = self._socket.recv_multipart()
            except zmq.Again:
                continue
            link, kind = self._links.get(identity), message[:1]
            if link is None or more:
                continue  # no link of this stage
            if kind == HELLO:
                self._taken[identity] = 0
            elif kind == FRAME:
                frame = self._codec.unpack(message[1 + NUMBER.size :])
                if not self._delivered(identity, link):
                    continue
                yield frame
            elif kind == END:
                if self._taken.pop(identity, None) is not None:  # else it is of one that was dismissed
                    self._open.discard(identity)
                    self._socket.send_multipart([identity, STOP])
                continue
            # after HELLO, and when the stage asks for its next frame: it is ready for so many more
            grant = CREDIT + NUMBER.pack(self._taken.get(identity, 0) + WINDOW[link.policy])
            self._socket.send_multipart([identity, grant])

    def _delivered(self, identity: bytes, link: Link) -> bool:
        """Count a frame as delivered, unless its sender was dismissed."""
        with self._lock:
            if identity not in self._taken:
                return False
            self._taken[identity] += 1
            link.deliver()
            return True

    def close(self) -> None:
        """Tell the senders that nothing more is taken."""
        for identity in tuple(self._links):
            self._socket.send_multipart([identity, STOP])
        self._socket.close()
