"""The metrics server: one thread per connection, with limits on the number and the duration of connections.

Bound to a loopback address it rejects any `Host` header that is neither an IP address nor localhost, which stops DNS
rebinding. Bound to another address it allows every host name. With a token it answers only requests that carry it.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http import HTTPStatus
from threading import Condition, Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from stream_seg.config.document import METRICS_TOKEN_ENV, MetricsConfig
from stream_seg.errors import ConfigError
from stream_seg.redact import redact_secrets
from stream_seg.runtime.graph import Graph
from stream_seg.web.access import TokenVerifier, load_certificate, read_token
from stream_seg.web.exposition import choose_format
from stream_seg.web.health import answer_health
from stream_seg.web.hosts import format_host, is_allowed_host, is_loopback

LOG = logging.getLogger(__name__)
HEALTH = "/healthz"
"""Path that needs no token."""
TIMEOUT_S = 5.0
"""Connections that have not been answered after this time are closed."""
MAX_CONNECTIONS = 16
"""At this number, the oldest connection without a complete request is closed at once."""
ADMIT_TIMEOUT_S = 1.0
"""A new connection waits this long for others to end, whose threads need a moment, before it is closed."""


@contextmanager
def serve_metrics(graph: Graph, config: MetricsConfig) -> Iterator[str]:
    """Serve the graph's registry and yield the URL; its port is a free one for port 0.

    Enter before the graph starts. Raises ConfigError if the port is not available, and for an invalid token or
    certificate.
    """
    host, tls = redact_secrets(config.host), None
    token = read_token(config.token_file, METRICS_TOKEN_ENV, where="metrics", error=ConfigError)
    if config.certfile and config.keyfile:
        tls = load_certificate(config.certfile, config.keyfile, where="metrics")
    try:
        server = MetricsServer(config.host, config.port, graph.registry, token=token, tls=tls, stalls=graph.stalls)
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(
            f"metrics: cannot serve on {host}:{config.port}: {reason}; choose another metrics.port"
        ) from error
    if not server.loopback_only and token is None:
        LOG.warning(
            "metrics.host %s: everyone who reaches it can read them; set metrics.token_file or %s",
            host,
            METRICS_TOKEN_ENV,
        )
    thread = Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        scheme = "https" if tls else "http"
        yield f"{scheme}://{format_host(config.host)}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class MetricsServer(ThreadingWSGIServer):
    """Listen from construction on; `serve_forever` answers. Raise OSError if the address cannot be bound.

    With `tls`, the context of a certificate, it speaks https only.
    """

    request_queue_size = 128

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        *,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        stalls: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self.host, self._tls = host, tls
        self._connections: dict[socket.socket, float] = {}  # accepted at, oldest first
        self.answering: set[socket.socket] = set()  # those with a complete request, not closed in favor of new ones
        self.changed = Condition()
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family, _, _, _, address = addresses[0]
        super().__init__((str(address[0]), port), _Handler)
        self.loopback_only = is_loopback(str(self.server_address[0]))
        tokens = TokenVerifier(token)
        self.set_app(_make_app(registry, tokens, lambda: answer_health(stalls(), secret=token is not None)))

    def get_request(self) -> tuple[Any, Any]:
        """Accept a connection. The TLS handshake follows in its thread, with the first byte that is read."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self.changed:
            if len(self._connections) >= MAX_CONNECTIONS:
                for connection in [c for c in self._connections if c not in self.answering][:1]:
                    _shut_down(connection)
            if not self.changed.wait_for(lambda: len(self._connections) < MAX_CONNECTIONS, ADMIT_TIMEOUT_S):
                self.shutdown_request(request)
                return
            self._connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self.changed:  # locked, so that no other thread shuts down a file descriptor that is already reused
            super().shutdown_request(request)
            self._connections.pop(request, None)
            self.answering.discard(request)
            self.changed.notify_all()

    def service_actions(self) -> None:
        """Close slow connections. `serve_forever` calls this twice a second and after every connection."""
        self._shut_down_older_than(TIMEOUT_S)

    def server_close(self) -> None:
        super().server_close()
        self._shut_down_older_than(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        LOG.debug("metrics request failed", exc_info=True)  # the base class prints a traceback to stderr

    def _shut_down_older_than(self, seconds: float) -> None:
        now_s = time.monotonic()
        with self.changed:
            for connection, since_s in self._connections.items():
                if now_s - since_s >= seconds:
                    _shut_down(connection)


class _Handler(WSGIRequestHandler):
    server: MetricsServer

    def parse_request(self) -> bool:
        """Return True if the request is to be answered. Errors are sent here."""
        if not super().parse_request():
            return False
        if self.server.loopback_only and not is_allowed_host(self.headers.get("Host", ""), (self.server.host,)):
            self.send_error(421, "host name not allowed; use the IP address")
            return False
        with self.server.changed:
            self.server.answering.add(self.connection)
        return True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by the standard library
        """Do not log requests."""


def _make_app(
    registry: CollectorRegistry, tokens: TokenVerifier, health: Callable[[], tuple[int, str]]
) -> Callable[..., Any]:
    """Return the application: the metrics for requests with the right token, and at HEALTH the health for all.

    The metrics get only `Accept` headers that they can parse.
    """
    metrics = make_wsgi_app(registry)

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == HEALTH:
            return _answer(start_response, *health())
        rejection = tokens.reject_header(environ.get("HTTP_AUTHORIZATION", ""), environ["REMOTE_ADDR"])
        if rejection is not None:
            status, message, headers = rejection
            return _answer(start_response, status, f"{message}\n", headers.items())
        _, content_type = choose_format(environ.get("HTTP_ACCEPT", ""))
        return metrics({**environ, "HTTP_ACCEPT": content_type}, start_response)

    return call


def _answer(start_response: Any, status: int, text: str, headers: Iterable[tuple[str, str]] = ()) -> list[bytes]:
    start_response(f"{status} {HTTPStatus(status).phrase}", [("Content-Type", "text/plain"), *headers])
    return [text.encode()]


def _shut_down(connection: socket.socket) -> None:
    """End a connection. The thread that reads or writes it wakes up and closes it."""
    with suppress(OSError):  # the client has disconnected already
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # that of a TLS socket is not safe while another reads
