"""The page's server: uvicorn in its own thread, running as long as the stage `serve` gets frames."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import Protocol

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from stream_seg.errors import OutputError
from stream_seg.redact import redact_secrets
from stream_seg.web.access import load_certificate
from stream_seg.web.app import Page
from stream_seg.web.auth import AccessGuard, TokenAuth
from stream_seg.web.hosts import format_host
from stream_seg.web.mjpeg import MjpegStreams
from stream_seg.web.renderer import Renderer
from stream_seg.web.state import PageState

IDLE_S = 5.0
"""Connections without a request, or whose response makes no progress, are closed after this time."""
MAX_CONNECTIONS = 512
"""Above this number, the oldest idle connections are closed at once."""
SEND_BUFFER = 262_144
"""Bytes that the kernel buffers per viewer: a slow one gets the newest image, not those of seconds ago."""
LINGER_0 = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of 0: close() resets the connection and discards unsent data."""


class ServeConfig(Protocol):
    """The keys of the stage `serve` that the server needs."""

    host: str
    port: int
    hosts: list[str]
    max_clients: int
    max_width: int
    max_fps: float
    quality: int
    certfile: Path | None
    keyfile: Path | None


@contextmanager
def serve_page(
    config: ServeConfig, token: str | None, registry: CollectorRegistry | None, state: PageState
) -> Iterator[str]:
    """Serve the page of a state while the body runs. Yield the page's URL.

    Raise OutputError if the address cannot be bound, ConfigError for an invalid certificate.
    """
    server = _PageServer(config, state, TokenAuth(token), registry or CollectorRegistry())
    listener = _listen(config.host, config.port)
    thread = Thread(target=server.run_in_thread, args=(listener,), name="page", daemon=True)
    server.renderer.start()
    thread.start()
    try:
        scheme = "https" if config.certfile else "http"
        yield f"{scheme}://{format_host(config.host)}:{listener.getsockname()[1]}"
    finally:
        state.close()
        server.should_exit = True
        thread.join(1.5)
        listener.close()
        server.renderer.join(0.5)


class _PageServer(uvicorn.Server):
    """uvicorn with limits on its connections."""

    def __init__(self, config: ServeConfig, state: PageState, auth: TokenAuth, registry: CollectorRegistry) -> None:
        self.renderer = Renderer(state, config.quality, config.max_width, config.max_fps)
        streams = MjpegStreams(self.renderer, config.max_clients, self._abort)
        self.renderer.publish = streams.publish
        self._state = state
        self._idle: dict[H11Protocol, tuple[object, float]] = {}
        app = Page(state, streams, auth, registry).app()
        super().__init__(_configure_uvicorn(config, AccessGuard(app, auth, (config.host, *config.hosts))))

    def run_in_thread(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self.serve([listener]))
        except Exception as error:  # noqa: BLE001 - any error ends the stage, not only the page
            self._state.error = error

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second. Return True to stop."""
        if counter % 10 == 0:
            self._state.sample()
        self._close_idle_connections()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in self._connections():
            _reset_connection(connection)
        await super().shutdown(sockets)

    def _connections(self) -> list[H11Protocol]:
        return [c for c in self.server_state.connections if isinstance(c, H11Protocol)]

    def _abort(self, scope: Scope) -> None:
        for connection in self._connections():
            if connection.client == scope["client"]:
                _reset_connection(connection)

    def _close_idle_connections(self) -> None:
        """Close connections that make no progress: uvicorn waits forever for the end of a request's headers."""
        now_s, before, self._idle = time.monotonic(), self._idle, {}
        for connection in self._connections():
            if connection.cycle is None or connection.cycle.response_complete:
                progress = id(connection.cycle), connection.transport.get_write_buffer_size()
                previous, since_s = before.get(connection, (None, now_s))
                self._idle[connection] = progress, since_s if previous == progress else now_s
        oldest = sorted(self._idle, key=lambda connection: self._idle[connection][1])
        excess = max(0, len(self._connections()) - MAX_CONNECTIONS)
        for rank, connection in enumerate(oldest):
            if rank < excess or now_s - self._idle[connection][1] > IDLE_S:
                _reset_connection(connection)


def _reset_connection(connection: H11Protocol) -> None:
    """Close at once. An ordinary close waits, in asyncio and in the kernel, until the viewer has read all data."""
    with suppress(AttributeError, OSError):  # the connection has just been lost, and with it the socket
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    connection.transport.abort()


def _configure_uvicorn(config: ServeConfig, guard: AccessGuard) -> uvicorn.Config:
    uvicorn_config = uvicorn.Config(
        guard,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16384,
        ssl_certfile=config.certfile,
        ssl_keyfile=config.keyfile and str(config.keyfile),
    )
    if config.certfile and config.keyfile:
        load_certificate(config.certfile, config.keyfile, where="serve")  # with better errors than uvicorn's
    uvicorn_config.load()
    return uvicorn_config


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        address, reason = f"{redact_secrets(host)}:{port}", error.strerror or error
        raise OutputError(f"serve: cannot serve on {address}: {reason}; choose another port or host") from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listener
