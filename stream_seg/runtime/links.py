"""The wires of a graph: for every arrow a link, the sender at its beginning, and that one's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Thread

import zmq

from stream_seg.runtime.link import ByReference, Context, Receiver, Sender
from stream_seg.runtime.link_stats import Link
from stream_seg.stages.base import Policy


@dataclass(frozen=True)
class Wire:
    """An arrow from the stage `start` to the stage `end`."""

    start: str
    end: str
    link: Link
    sender: Sender


class Wires:
    """All wires of one graph. One thread lays and takes them up, while others may read what is there.

    `open`, then `bind` for every receiver, then `start`; at the end `end`, `stop`, and `close` once every receiver has.
    """

    def __init__(self) -> None:
        self._codec = ByReference()
        self._laid: tuple[Wire, ...] = ()
        self._receivers: dict[str, Receiver] = {}
        self._threads: dict[str, Thread] = {}
        self._books: dict[str, Link] = {}

    @property
    def links(self) -> list[Link]:
        """Of every wire that is laid."""
        return [wire.link for wire in self._laid]

    @property
    def books(self) -> list[Link]:
        """Of every wire that is laid or was taken up."""
        return [*self.links, *self._books.values()]

    def lay(self, start: str, end: str, policy: Policy) -> Wire:
        """One more wire, still without a thread; one that was there before counts on."""
        name = f"{start}->{end}"
        link = self._books.pop(name, None) or Link(name, policy)
        wire = Wire(start, end, link, Sender(link, self._codec))
        self._laid = (*self._laid, wire)
        return wire

    def of(self, start: str) -> list[Wire]:
        """Those that begin at a stage."""
        return [wire for wire in self._laid if wire.start == start]

    def receiver(self, end: str) -> Receiver:
        """The receiving end of all wires to a stage."""
        receiver = Receiver([wire.link for wire in self._laid if wire.end == end], self._codec)
        self._receivers[end] = receiver
        return receiver

    def open(self) -> None:
        """Have sockets from here on."""
        self._context: Context = zmq.Context()

    def bind(self, receiver: Receiver, name: str) -> None:
        """Open a stage's door under its name."""
        receiver.bind(self._context, f"inproc://{name}")

    def start(self, wires: Sequence[Wire] | None = None) -> None:
        """Begin to send, by default over all; their doors are open."""
        for wire in self._laid if wires is None else wires:
            self._threads[wire.link.name] = wire.sender.start(self._context, f"inproc://{wire.end}")

    def end(self) -> None:
        """Nothing more will be sent but what is on the way."""
        for wire in self._laid:
            wire.sender.end()

    def stop(self, timeout_s: float) -> None:
        """Give up what is on the way, wait so long for each thread, and settle the books."""
        for wire in self._laid:
            wire.sender.stop()
        for thread in tuple(self._threads.values()):
            thread.join(timeout_s)
        for wire in self._laid:
            wire.link.settle()

    def take_up(self, start: str) -> list[Wire]:
        """The wires from a stage, which belong to the graph no more; `finish` follows."""
        wires = self.of(start)
        self._laid = tuple(wire for wire in self._laid if wire.start != start)
        return wires

    def threads(self, wires: Sequence[Wire]) -> list[Thread]:
        """Those that send over wires."""
        return [self._threads[wire.link.name] for wire in wires]

    def finish(self, wires: Sequence[Wire]) -> None:
        """Stop wires that were taken up, whatever is still under way on them; their books are kept."""
        for wire in wires:
            wire.sender.stop()
            self._receivers[wire.end].dismiss(wire.link)
            self._books[wire.link.name] = wire.link
            del self._threads[wire.link.name]

    def close(self) -> None:
        """Wait for every thread, and have no sockets any more."""
        for thread in tuple(self._threads.values()):
            thread.join()
        self._context.term()
