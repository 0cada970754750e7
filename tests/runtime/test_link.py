"""One contract for a link, whatever carries it and whatever its policy."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import pytest
import zmq

from stream_seg.frame import Frame
from stream_seg.runtime.link import ByReference, Codec, Receiver, Sender
from stream_seg.runtime.link_stats import LinkStats
from stream_seg.stages.base import Policy
from tests.support.frames import make_frame


class ByNumber:
    """A codec that could cross a process: the number alone travels."""

    def pack(self, sent: Frame) -> bytes:
        return struct.pack("!Q", sent.seq)

    def unpack(self, body: bytes) -> Frame:
        return make_frame(struct.unpack("!Q", body)[0])


@dataclass
class Ends:
    """A link with its sender, and a thread that takes frames when it is let."""

    link: LinkStats
    sender: Sender
    receiver: Receiver
    received: list[int] = field(default_factory=list)
    taken: Event = field(default_factory=Event)
    let: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: Thread | None = None

    def take(self, number: int) -> None:
        """Let the receiving stage finish with `number` frames."""
        self.let.release(number)

    def receive(self) -> None:
        for received in self.receiver.frames():
            self.received.append(received.seq)
            self.taken.set()
            self.let.acquire()
        self.receiver.close()


@contextmanager
def connected(policy: Policy, endpoint: str, codec: Codec) -> Iterator[Ends]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = LinkStats("a->b", policy)
    ends = Ends(link, Sender(link, codec), Receiver([link], codec))
    ends.receiver.bind(context, endpoint)
    sending = ends.sender.start(context, endpoint)
    ends.thread = Thread(target=ends.receive)
    ends.thread.start()
    try:
        yield ends
    finally:
        ends.take(10_000)
        ends.sender.end()
        ends.thread.join(5)
        sending.join(5)
        assert not ends.thread.is_alive()
        assert not sending.is_alive()
        context.term()


@pytest.fixture(params=["inproc", "ipc", "tcp"])
def carrier(request: pytest.FixtureRequest, tmp_path: Path, unused_port: int) -> tuple[str, Codec]:
    if request.param == "inproc":
        return "inproc://b", ByReference()
    return {"ipc": f"ipc://{tmp_path}/b", "tcp": f"tcp://127.0.0.1:{unused_port}"}[request.param], ByNumber()


def put_all(ends: Ends, numbers: range) -> Thread:
    def work() -> None:
        for number in numbers:
            ends.sender.put(make_frame(number))
        ends.sender.end()

    thread = Thread(target=work)
    thread.start()
    return thread


def until(condition: object, *, within_s: float = 5.0) -> None:
    """Wait for a condition that another thread brings about."""
    end = time.monotonic() + within_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "the condition never came"
        time.sleep(0.001)


def test_every_frame_arrives_once_and_in_order(carrier: tuple[str, Codec]) -> None:
    with connected("every", *carrier) as ends:
        ends.take(10_000)
        putting = put_all(ends, range(500))
        putting.join(10)
        assert ends.thread is not None
        ends.thread.join(10)
        assert ends.received == list(range(500))
        account = ends.link.counts()
        assert (account.entered, account.delivered, account.in_flight) == (500, 500, 0)
        assert not any(account.dropped.values())


def test_every_holds_the_sender_back(carrier: tuple[str, Codec]) -> None:
    with connected("every", *carrier) as ends:
        putting = put_all(ends, range(50))
        until(lambda: ends.received == [0])
        until(lambda: ends.link.counts().entered == 4)  # 1 at the stage, 1 on the way, 1 in the outbox, 1 waiting
        assert putting.is_alive()
        ends.take(1)
        until(lambda: ends.link.counts().entered == 5)
        ends.take(1000)
        putting.join(5)
    assert ends.received == list(range(50))


def test_latest_delivers_the_newest_and_counts_the_rest(carrier: tuple[str, Codec]) -> None:
    with connected("latest", *carrier) as ends:
        ends.sender.put(make_frame(0))
        until(lambda: ends.received == [0])
        for number in range(1, 20):
            assert ends.sender.put(make_frame(number))
        account = ends.link.counts()
        assert account.dropped["superseded"] == 18
        assert account.in_flight == 1
        ends.take(1)
        until(lambda: len(ends.received) == 2)
        assert ends.received == [0, 19]


def test_latest_delivers_the_last_frame_before_the_end(carrier: tuple[str, Codec]) -> None:
    with connected("latest", *carrier) as ends:
        ends.sender.put(make_frame(0))
        until(lambda: ends.received == [0])
        ends.sender.put(make_frame(1))
        ends.sender.put(make_frame(2))
        ends.sender.end()
        ends.take(10)
        assert ends.thread is not None
        ends.thread.join(5)
        assert ends.received == [0, 2]
        assert ends.receiver.ended


def test_books_balance_at_every_moment() -> None:
    with connected("latest", "inproc://b", ByReference()) as ends:
        putting = put_all(ends, range(3000))
        while putting.is_alive():
            ends.take(1)
            account = ends.link.counts()
            assert account.in_flight in range(4)
        ends.take(10_000)
        assert ends.thread is not None
        ends.thread.join(5)
        account = ends.link.counts()
    assert account.entered == 3000
    assert account.delivered == len(ends.received)
    assert account.delivered + account.dropped["superseded"] == 3000
    assert ends.received == sorted(set(ends.received))


def test_put_says_that_the_receiver_has_gone(carrier: tuple[str, Codec]) -> None:
    with connected("every", *carrier) as ends:
        ends.sender.put(make_frame(0))
        until(lambda: ends.received == [0])
        ends.receiver.abort()
        ends.take(1)
        assert ends.thread is not None
        ends.thread.join(5)
        until(lambda: not ends.sender.put(make_frame(1)))
        ends.link.drop_rest()
        account = ends.link.counts()
        assert account.in_flight == 0
        assert account.entered == account.delivered + account.dropped["stopped"]


def test_what_a_dismissed_sender_had_on_the_way_is_nobodys_and_the_next_of_its_name_begins_anew() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link, codec = LinkStats("a->b", "latest"), ByReference()
    receiver = Receiver([link], codec)
    receiver.bind(context, "inproc://b")
    first = Sender(link, codec)
    threads = [first.start(context, "inproc://b")]
    frames = receiver.frames()
    for number in range(5):
        first.put(make_frame(number))
        assert next(frames).seq == number
    receiver._socket.send_multipart([b"a->b", b"C" + struct.pack("!Q", 6)])  # asked for, and then never looked at
    first.put(make_frame(5))
    until(lambda: codec._frames)
    receiver.dismiss(link)
    account = link.counts()
    assert (account.in_flight, account.dropped["stopped"], receiver.ended) == (0, 1, True)

    receiver.admit(link)
    received: list[int] = []
    reading = Thread(target=lambda: received.extend(frame.seq for frame in frames))
    reading.start()
    until(lambda: not codec._frames)  # it was read, and is nobody's
    first.stop()
    threads[0].join(5)
    second = Sender(link, codec)
    threads.append(second.start(context, "inproc://b"))
    second.put(make_frame(10))
    second.end()
    reading.join(5)
    assert received == [10]
    account = link.counts()
    assert (account.in_flight, account.dropped["stopped"]) == (0, 1)
    receiver.close()
    threads[1].join(5)
    context.term()


def test_a_stranger_is_not_heard() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = LinkStats("a->b", "every")
    codec = ByReference()
    receiver = Receiver([link], codec)
    receiver.bind(context, "inproc://b")
    stranger = context.socket(zmq.DEALER)
    stranger.connect("inproc://b")
    stranger.send(b"F" + bytes(16))
    sender = Sender(link, codec)
    thread = sender.start(context, "inproc://b")
    sender.put(make_frame(7))
    sender.end()
    assert [received.seq for received in receiver.frames()] == [7]
    receiver.close()
    thread.join(5)
    stranger.close(linger=0)
    context.term()
