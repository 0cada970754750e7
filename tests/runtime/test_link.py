"""The contract of a link, for every transport and every policy."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Semaphore, Thread

import pytest
import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link import ByReference, Codec
from stream_seg.runtime.link_stats import LinkStats
from stream_seg.runtime.receiver import Receiver
from stream_seg.runtime.sender import Sender, make_sender
from stream_seg.stages.base import Policy
from tests.support.frames import make_frame
from tests.support.program import wait_until


class ByNumber:
    """A codec that could cross a process boundary: it sends the number of the frame."""

    def pack(self, frame: Frame) -> bytes:
        return struct.pack("!Q", frame.seq)

    def unpack(self, body: bytes) -> Frame:
        return make_frame(struct.unpack("!Q", body)[0])


@dataclass
class Ends:
    """Both ends of a link, and the thread of a receiving stage that needs a permit to finish each frame."""

    link: LinkStats
    sender: Sender
    receiver: Receiver
    received: list[int] = field(default_factory=list)
    permits: Semaphore = field(default_factory=lambda: Semaphore(0))

    def __post_init__(self) -> None:
        self.thread = Thread(target=self._receive)

    def finish(self, frames: int) -> None:
        """Let the receiving stage finish so many frames."""
        self.permits.release(frames)

    def _receive(self) -> None:
        for frame in self.receiver.frames():
            self.received.append(frame.seq)
            self.permits.acquire()
        self.receiver.close()


@contextmanager
def open_link(policy: Policy, endpoint: str, codec: Codec) -> Iterator[Ends]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = LinkStats("a->b", policy)
    ends = Ends(link, make_sender(link, codec), Receiver([link], codec))
    ends.receiver.bind(context, endpoint)
    sending = ends.sender.start(context, endpoint)
    ends.thread.start()
    try:
        yield ends
    finally:
        ends.finish(10_000)
        ends.sender.end()
        ends.thread.join(5)
        sending.join(5)
        assert not ends.thread.is_alive()
        assert not sending.is_alive()
        context.term()


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def transport(request: pytest.FixtureRequest, tmp_path: Path, unused_port: int) -> tuple[str, Codec]:
    """An endpoint and a codec for it."""
    if request.param == "inproc":
        return "inproc://b", ByReference()
    return {"ipc": f"ipc://{tmp_path}/b", "tcp": f"tcp://127.0.0.1:{unused_port}"}[request.param], ByNumber()


def start_sending(ends: Ends, numbers: range) -> Thread:
    """Put frames of these numbers in a thread, and end the stream."""

    def put_all() -> None:
        for number in numbers:
            ends.sender.put(make_frame(number))
        ends.sender.end()

    thread = Thread(target=put_all)
    thread.start()
    return thread


def test_every_frame_arrives_once_and_in_order(transport: tuple[str, Codec]) -> None:
    with open_link("every", *transport) as ends:
        ends.finish(10_000)
        start_sending(ends, range(500)).join(10)
        ends.thread.join(10)
        assert ends.received == list(range(500))
        counts = ends.link.counts()
        assert (counts.entered, counts.delivered, counts.in_flight) == (500, 500, 0)
        assert not any(counts.dropped.values())


def test_every_holds_the_sender_back(transport: tuple[str, Codec]) -> None:
    with open_link("every", *transport) as ends:
        sending = start_sending(ends, range(50))
        wait_until(lambda: ends.received == [0])
        wait_until(lambda: ends.link.counts().entered == 4)  # 1 in the stage, 2 sent, 1 in `put`
        assert sending.is_alive()
        ends.finish(1)
        wait_until(lambda: ends.link.counts().entered == 5)
        ends.finish(1000)
        sending.join(5)
    assert ends.received == list(range(50))


def test_latest_delivers_the_newest_and_counts_the_rest(transport: tuple[str, Codec]) -> None:
    with open_link("latest", *transport) as ends:
        ends.sender.put(make_frame(0))
        wait_until(lambda: ends.received == [0])
        for number in range(1, 20):
            assert ends.sender.put(make_frame(number))
        counts = ends.link.counts()
        assert counts.dropped["superseded"] == 18
        assert counts.in_flight == 1
        ends.finish(1)
        wait_until(lambda: len(ends.received) == 2)
        assert ends.received == [0, 19]


def test_latest_delivers_the_last_frame_before_the_end(transport: tuple[str, Codec]) -> None:
    with open_link("latest", *transport) as ends:
        ends.sender.put(make_frame(0))
        wait_until(lambda: ends.received == [0])
        ends.sender.put(make_frame(1))
        ends.sender.put(make_frame(2))
        ends.sender.end()
        ends.finish(10)
        ends.thread.join(5)
        assert ends.received == [0, 2]
        assert ends.receiver.ended


def test_the_counts_add_up_at_every_moment() -> None:
    with open_link("latest", "inproc://b", ByReference()) as ends:
        sending = start_sending(ends, range(3000))
        while sending.is_alive():
            ends.finish(1)
            assert ends.link.counts().in_flight in range(4)
        ends.finish(10_000)
        ends.thread.join(5)
        counts = ends.link.counts()
    assert counts.entered == 3000
    assert counts.delivered == len(ends.received)
    assert counts.delivered + counts.dropped["superseded"] == 3000
    assert ends.received == sorted(set(ends.received))


def test_put_returns_false_once_the_receiver_has_closed(transport: tuple[str, Codec]) -> None:
    with open_link("every", *transport) as ends:
        ends.sender.put(make_frame(0))
        wait_until(lambda: ends.received == [0])
        ends.receiver.abort()
        ends.finish(1)
        ends.thread.join(5)
        wait_until(lambda: not ends.sender.put(make_frame(1)))
        ends.link.drop_rest()
        counts = ends.link.counts()
        assert counts.in_flight == 0
        assert counts.entered == counts.delivered + counts.dropped["stopped"]


def test_frames_of_a_dismissed_sender_are_ignored_and_a_new_one_of_its_name_starts_afresh() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link, codec = LinkStats("a->b", "latest"), ByReference()
    receiver = Receiver([link], codec)
    receiver.bind(context, "inproc://b")
    first = make_sender(link, codec)
    threads = [first.start(context, "inproc://b")]
    frames = receiver.frames()
    for number in range(5):
        first.put(make_frame(number))
        assert next(frames).seq == number
    receiver._socket.send_multipart([b"a->b", b"C" + struct.pack("!Q", 6)])  # a credit; nobody reads the frame yet
    first.put(make_frame(5))
    wait_until(lambda: codec._frames)
    receiver.dismiss(link)
    counts = link.counts()
    assert (counts.in_flight, counts.dropped["stopped"], receiver.ended) == (0, 1, True)

    receiver.admit(link)
    received: list[int] = []
    reading = Thread(target=lambda: received.extend(frame.seq for frame in frames))
    reading.start()
    wait_until(lambda: not codec._frames)  # the receiver has read frame 5, and ignored it
    first.stop()
    threads[0].join(5)
    second = make_sender(link, codec)
    threads.append(second.start(context, "inproc://b"))
    second.put(make_frame(10))
    second.end()
    reading.join(5)
    assert received == [10]
    counts = link.counts()
    assert (counts.in_flight, counts.dropped["stopped"]) == (0, 1)
    receiver.close()
    threads[1].join(5)
    context.term()


def test_messages_of_an_unknown_peer_are_ignored() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link, codec = LinkStats("a->b", "every"), ByReference()
    receiver = Receiver([link], codec)
    receiver.bind(context, "inproc://b")
    stranger = context.socket(zmq.DEALER)
    stranger.connect("inproc://b")
    stranger.send(b"F" + bytes(16))
    sender = make_sender(link, codec)
    thread = sender.start(context, "inproc://b")
    sending = Thread(target=lambda: (sender.put(make_frame(7)), sender.end()))
    sending.start()
    assert [frame.seq for frame in receiver.frames()] == [7]
    sending.join(5)
    receiver.close()
    thread.join(5)
    stranger.close(linger=0)
    context.term()
