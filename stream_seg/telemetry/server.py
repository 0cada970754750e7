"""The server of the metrics: a thread for each connection, but few of them, and none for long.

On an address of this machine alone a `Host` that is neither an address nor localhost is refused, so that no page of a
foreign name that was pointed at this machine (DNS rebinding) reads it. Who binds another address lets others read.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import suppress
from socketserver import ThreadingMixIn
from threading import Condition
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from stream_seg.web.hosts import is_loopback, known_host

LOG = logging.getLogger(__name__)
LIMIT_S = 5.0
"""A connection that has not been answered after so long is closed."""
MAX_CONNECTIONS = 16
"""Beyond, the one that has been without a whole request for longest is closed at once."""
ROOM_S = 1.0
"""So long a new connection waits for room before it is closed: its threads need a moment to end."""


class Server(ThreadingMixIn, WSGIServer):
    """Listens from the start; `serve_forever` answers. Raises OSError where the address cannot be had."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._open: dict[socket.socket, float] = {}  # since when; in the order in which they came
        self._heard: set[socket.socket] = set()  # of these, whose request is whole
        self._changed = Condition()
        self._host = host
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = found[0]
        super().__init__((str(address[0]), port), _Handler)
        self.private = is_loopback(str(self.server_address[0]))
        self.set_app(make_wsgi_app(registry))

    def admits(self, host: str) -> bool:
        """Whether a request may call this server by that name."""
        return not self.private or known_host(host, (self._host,))

    def heard(self, link: socket.socket) -> None:
        """Note that a request is whole: what is being answered is not closed for a newcomer."""
        with self._changed:
            self._heard.add(link)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            if len(self._open) >= MAX_CONNECTIONS:
                for link in [link for link in self._open if link not in self._heard][:1]:
                    _cut(link)
            if not self._changed.wait_for(lambda: len(self._open) < MAX_CONNECTIONS, ROOM_S):
                self.shutdown_request(request)
                return
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:  # so that nobody cuts a number that the system has given to another file
            super().shutdown_request(request)
            self._open.pop(request, None)
            self._heard.discard(request)
            self._changed.notify_all()

    def service_actions(self) -> None:
        """Called by `serve_forever` twice a second and after every connection."""
        self._cut_older_than(LIMIT_S)

    def server_close(self) -> None:
        super().server_close()
        self._cut_older_than(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug("a scrape was broken off", exc_info=True)  # not, as usual, a traceback on standard error

    def _cut_older_than(self, seconds: float) -> None:
        now = time.monotonic()
        with self._changed:
            for link, since in self._open.items():
                if now - since >= seconds:
                    _cut(link)


class _Handler(WSGIRequestHandler):
    server: Server

    def parse_request(self) -> bool:
        """Whether there is something to answer; an error is answered here."""
        if not super().parse_request():
            return False
        if not self.server.admits(self.headers.get("Host", "")):
            self.send_error(421, "the metrics do not answer to that host name; ask for them by address")
            return False
        self.server.heard(self.connection)
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the standard library
        """Nothing: a line for every scrape helps nobody."""


def _cut(link: socket.socket) -> None:
    """End a connection; the thread that reads or writes it wakes and closes it."""
    with suppress(OSError):  # the other side was faster
        link.shutdown(socket.SHUT_RDWR)
