"""The sending end of a link, one for each policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from threading import Condition, Event, Lock, Thread

import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link import END, FRAME, HELLO, NUMBER, STOP, WAIT_MS, Codec, Context
from stream_seg.runtime.link_stats import LinkStats


class Sender(ABC):
    """The sending end. `put` is for the thread of the stage; `end` and `stop` may be called from any thread."""

    def __init__(self, stats: LinkStats, codec: Codec) -> None:
        self._stats, self._codec = stats, codec
        self._granted = self._sent = 0  # numbers of frames
        self._stopped = False  # nothing more will be taken

    def start(self, context: Context, endpoint: str) -> Thread:
        """Connect to the receiver, and start a thread that ends once the receiver has closed or `stop` was called."""
        self._socket = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        self._socket.setsockopt(zmq.SNDTIMEO, WAIT_MS)
        self._socket.setsockopt(zmq.ROUTING_ID, self._stats.name.encode())
        self._socket.connect(endpoint)
        self._transmit(HELLO)
        thread = Thread(target=self._run, name=f"link {self._stats.name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no further thread
            self._socket.close()
            raise
        return thread

    @abstractmethod
    def put(self, frame: Frame) -> bool:
        """Hand a frame to the link. Return False, with the frame dropped as "stopped", once either end has closed."""

    @abstractmethod
    def end(self) -> None:
        """End the stream: frames already put are delivered, then the receiver sees the end of the stream."""

    @abstractmethod
    def stop(self) -> None:
        """Stop at once and drop undelivered frames."""

    @abstractmethod
    def _send_all(self) -> None:
        """Return once the last frame was sent, or the sender was stopped: the thread then owns the socket."""

    def _run(self) -> None:
        with self._socket:
            self._send_all()
            self._transmit(END)
            while not self._stopped:  # the receiver closes first: closing now could lose sent frames
                self._read_credits(wait=True)

    def _send(self, frame: Frame) -> None:
        self._sent += 1
        self._transmit(FRAME + NUMBER.pack(self._sent) + self._codec.pack(frame))

    def _transmit(self, message: bytes) -> None:
        """Send a message, unless the sender is stopped: a DEALER without a peer would wait for ever."""
        while not self._stopped:
            try:
                self._socket.send(message)
                return
            except zmq.Again:
                self._read_credits(wait=False)

    def _read_credits(self, *, wait: bool) -> None:
        """Read the messages that have come, or wait up to WAIT_MS for the first one."""
        while wait or int(self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            try:
                message = self._socket.recv()
            except zmq.Again:
                break
            if message == STOP:
                self.stop()
                break
            self._granted, wait = max(self._granted, NUMBER.unpack(message[1:])[0]), False


class LatestSender(Sender):
    """The sending end with policy `latest`: a thread of its own answers a credit with the newest frame at once, while
    the stage works on the next."""

    def __init__(self, stats: LinkStats, codec: Codec) -> None:
        super().__init__(stats, codec)
        self._newest: Frame | None = None
        self._ended = False  # nothing more will be put
        self._changed = Condition()

    def put(self, frame: Frame) -> bool:
        with self._changed:
            self._stats.enter()
            if self._ended or self._stopped:
                self._stats.drop("stopped")
                return False
            if self._newest is not None:
                self._stats.drop("superseded")
            self._newest = frame
            self._changed.notify_all()
            return True

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped, self._newest = True, None
            self._changed.notify_all()

    def _send_all(self) -> None:
        while not self._stopped:
            self._read_credits(wait=self._granted <= self._sent)
            if self._granted > self._sent:
                frame = self._take()
                if frame is None:
                    return
                self._send(frame)

    def _take(self) -> Frame | None:
        """Return the next frame to send, None at the end of the stream."""
        with self._changed:
            self._changed.wait_for(lambda: self._newest or self._ended or self._stopped)
            frame, self._newest = self._newest, None
            return frame


class EverySender(Sender):
    """The sending end with policy `every`: the thread of the stage sends, and waits for credits; a handover to another
    thread would take longer. At the end the thread of the link takes over."""

    def __init__(self, stats: LinkStats, codec: Codec) -> None:
        super().__init__(stats, codec)
        self._over, self._sending = Event(), Lock()

    def put(self, frame: Frame) -> bool:
        with self._sending:
            self._stats.enter()
            while self._granted <= self._sent and not self._over.is_set():
                self._read_credits(wait=True)
            if self._over.is_set():
                self._stats.drop("stopped")
                return False
            self._send(frame)
            return True

    def end(self) -> None:
        self._over.set()

    def stop(self) -> None:
        self._stopped = True
        self._over.set()

    def _send_all(self) -> None:
        self._over.wait()
        with self._sending:
            return  # `put` has seen it


def make_sender(stats: LinkStats, codec: Codec) -> Sender:
    """Return the sending end of a link with the policy of its `stats`."""
    return (LatestSender if stats.policy == "latest" else EverySender)(stats, codec)
