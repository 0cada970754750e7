"""The page's server: uvicorn in its own thread, running as long as the stage `serve` gets frames."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Protocol

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from stream_seg.errors import ConfigError, OutputError
from stream_seg.redact import redact_secrets
from stream_seg.web.app import Page
from stream_seg.web.auth import AccessGuard, TokenAuth
from stream_seg.web.hosts import format_host
from stream_seg.web.mjpeg import MjpegStreams
from stream_seg.web.renderer import DrawSettings, Renderer, StreamLimits, ViewKey
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
    opacity: float
    max_clients: int
    max_width: int
    max_fps: float
    quality: int
    certfile: Path | None
    keyfile: Path | None


@contextmanager
def serve_page(
    config: ServeConfig,
    *,
    token: str | None,
    registry: CollectorRegistry | None = None,
    streams: Callable[[], Container[str]] | None = None,
) -> Iterator[tuple[PageState, str]]:
    """Serve the page while the body runs. Yield the state to put frames into and the page's URL.

    `registry` has the metrics of the graph, `streams` returns the streams that it has now; None: all that ever came.
    Raise OutputError if the address cannot be bound, ConfigError for an invalid certificate.
    """
    state = PageState(current_streams=streams)
    limits = StreamLimits(config.quality, config.max_width, config.max_fps)
    renderer = Renderer(state, DrawSettings(config.opacity), limits)
    server = _PageServer(config, state, renderer, TokenAuth(token), registry or CollectorRegistry())
    renderer.start()
    server.start()
    try:
        yield state, server.url
    finally:
        state.close()
        server.stop()
        renderer.join(0.5)


class _PageServer:
    def __init__(
        self, config: ServeConfig, state: PageState, renderer: Renderer, auth: TokenAuth, registry: CollectorRegistry
    ) -> None:
        self._state = state
        self._streams = MjpegStreams(renderer, config.max_clients, self._abort)
        page = Page(state, self._streams, auth, registry)
        guard = AccessGuard(page.app(), auth, (config.host, *config.hosts))
        self._uvicorn = uvicorn.Server(_configure_uvicorn(config, guard))
        self._socket = _listen(config.host, config.port)
        scheme = "https" if config.certfile else "http"
        self.url = f"{scheme}://{format_host(config.host)}:{self._socket.getsockname()[1]}"
        self._started = Event()
        self._thread = Thread(target=self._run, name="page", daemon=True)
        renderer.publish = self._publish

    def start(self) -> None:
        self._thread.start()
        self._started.wait(5)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(1.5)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - any error ends the stage, not only the page
            self._state.error = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        coroutines = (self._close_idle_connections(), self._sample_state(), self._watch_server())
        tasks = [self._loop.create_task(coroutine) for coroutine in coroutines]
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            for task in tasks:
                task.cancel()

    def _publish(self, key: ViewKey, jpeg: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has just been closed
            self._loop.call_soon_threadsafe(self._streams.publish, key, jpeg)

    def _connections(self) -> list[H11Protocol]:
        return [c for c in self._uvicorn.server_state.connections if isinstance(c, H11Protocol)]

    def _abort(self, scope: Scope) -> None:
        for connection in self._connections():
            if connection.client == scope["client"]:
                _reset_connection(connection)

    async def _watch_server(self) -> None:
        while not self._uvicorn.should_exit:
            if self._uvicorn.started:
                self._started.set()
            await asyncio.sleep(0.02)
        for connection in self._connections():
            _reset_connection(connection)

    async def _sample_state(self) -> None:
        while True:
            self._state.sample()
            await asyncio.sleep(1)

    async def _close_idle_connections(self) -> None:
        """Close connections that make no progress: uvicorn waits forever for the end of a request's headers."""
        idle: dict[H11Protocol, tuple[object, float]] = {}
        while True:
            now_s, before, idle = time.monotonic(), idle, {}
            for connection in self._connections():
                if connection.cycle is None or connection.cycle.response_complete:
                    progress = id(connection.cycle), connection.transport.get_write_buffer_size()
                    previous, since_s = before.get(connection, (None, now_s))
                    idle[connection] = progress, since_s if previous == progress else now_s
            oldest = sorted((since_s, id(connection), connection) for connection, (_, since_s) in idle.items())
            excess = max(0, len(self._connections()) - MAX_CONNECTIONS)
            for rank, (since_s, _, connection) in enumerate(oldest):
                if rank < excess or now_s - since_s > IDLE_S:
                    _reset_connection(connection)
            await asyncio.sleep(0.25)


def _reset_connection(connection: H11Protocol) -> None:
    """Close at once. An ordinary close waits, in asyncio and in the kernel, until the viewer has read all data."""
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_0)
    connection.transport.abort()


def _configure_uvicorn(config: ServeConfig, guard: AccessGuard) -> uvicorn.Config:
    uvicorn_config = uvicorn.Config(
        guard,
        http="h11",
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=16384,
        ssl_certfile=config.certfile,
        ssl_keyfile=config.keyfile and str(config.keyfile),
    )
    try:
        uvicorn_config.load()
    except (ssl.SSLError, OSError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"serve: certfile {config.certfile}, keyfile {config.keyfile}: {reason}") from error
    return uvicorn_config


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"serve: cannot serve on {redact_secrets(host)}:{port}: {reason}; choose another port or host"
        ) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listener
