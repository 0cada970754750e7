"""All links of a graph: per arrow a sender with its thread, per stage a receiver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Thread

import zmq

from stream_seg.runtime.link import ByReference, Context
from stream_seg.runtime.link_stats import LinkStats
from stream_seg.runtime.receiver import Receiver
from stream_seg.runtime.sender import Sender, make_sender
from stream_seg.stages.base import Policy

CONTEXT_FILES = 16
"""Files that a ZeroMQ context opens with its first socket, with a reserve."""


@dataclass(frozen=True)
class Link:
    """The arrow from the stage `start` to the stage `end`."""

    start: str
    end: str
    stats: LinkStats
    sender: Sender


class Links:
    """The links of one graph. One thread adds and detaches links, while others may read.

    Order of calls: `open`, `bind` for every receiver, `start`; at the end `end`, `stop`, and `close` after every
    receiver has closed.
    """

    def __init__(self) -> None:
        self._codec = ByReference()
        self._links: tuple[Link, ...] = ()
        self._receivers: dict[str, Receiver] = {}
        self._threads: dict[str, Thread] = {}
        self._detached: dict[str, LinkStats] = {}

    @property
    def stats(self) -> list[LinkStats]:
        """Counters of every link."""
        return [link.stats for link in self._links]

    @property
    def all_stats(self) -> list[LinkStats]:
        """Counters of every link, including detached ones."""
        return [*self.stats, *self._detached.values()]

    def add(self, start: str, end: str, policy: Policy) -> Link:
        """Add a link, not started yet. A link that was there before continues its counts."""
        name = f"{start}->{end}"
        stats = self._detached.pop(name, None) or LinkStats(name, policy)
        link = Link(start, end, stats, make_sender(stats, self._codec))
        self._links = (*self._links, link)
        return link

    def of(self, start: str) -> list[Link]:
        """Return the links that start at a stage."""
        return [link for link in self._links if link.start == start]

    def receiver(self, end: str) -> Receiver:
        """Create the receiving end of all links into a stage."""
        receiver = Receiver([link.stats for link in self._links if link.end == end], self._codec)
        self._receivers[end] = receiver
        return receiver

    def open(self) -> None:
        """Create the ZeroMQ context. Raises OSError if it could not open its files: it would abort the process."""
        self._context: Context = zmq.Context()
        with ExitStack() as files:
            for _ in range(CONTEXT_FILES):
                files.enter_context(open(os.devnull, "rb"))

    def bind(self, receiver: Receiver, name: str) -> None:
        """Bind a receiver to the endpoint of its stage."""
        receiver.bind(self._context, f"inproc://{name}")

    def start(self, links: Sequence[Link] | None = None) -> None:
        """Start the senders of `links`, by default of all; their receivers are bound."""
        for link in self._links if links is None else links:
            self._threads[link.stats.name] = link.sender.start(self._context, f"inproc://{link.end}")

    def end(self) -> None:
        """End every stream: only frames that are under way are still sent."""
        for link in self._links:
            link.sender.end()

    def stop(self, timeout_s: float) -> None:
        """Drop the frames under way, wait up to `timeout_s` for each sender thread, and close the counts."""
        for link in self._links:
            link.sender.stop()
        for thread in tuple(self._threads.values()):
            thread.join(timeout_s)
        for link in self._links:
            link.stats.drop_rest()

    def detach(self, start: str) -> list[Link]:
        """Take the links from a stage out of the graph and return them; `discard` follows."""
        links = self.of(start)
        self._links = tuple(link for link in self._links if link.start != start)
        return links

    def threads(self, links: Sequence[Link]) -> list[Thread]:
        """Return the sender threads of links."""
        return [self._threads[link.stats.name] for link in links]

    def discard(self, links: Sequence[Link]) -> None:
        """Stop detached links and drop the frames under way on them; their counts stay."""
        for link in links:
            link.sender.stop()
            self._receivers[link.end].dismiss(link.stats)
            self._detached[link.stats.name] = link.stats
            del self._threads[link.stats.name]

    def close(self) -> None:
        """Wait for every sender thread and destroy the ZeroMQ context."""
        for thread in tuple(self._threads.values()):
            thread.join()
        self._context.term()
