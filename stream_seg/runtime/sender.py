"""The sending end of a link."""

from __future__ import annotations

from collections import deque
from threading import Condition, Thread

import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link import END, FRAME, HELLO, NUMBER, STOP, WAIT_MS, Codec, Context
from stream_seg.runtime.link_stats import LinkStats


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
