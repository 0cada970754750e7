"""The server of the page: uvicorn in a thread of its own, from the first frame's time to the last's."""

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
from stream_seg.redact import without_secrets
from stream_seg.web.app import Page
from stream_seg.web.auth import Guard, TokenAuth
from stream_seg.web.hosts import in_address
from stream_seg.web.mjpeg import Feeds
from stream_seg.web.renderer import Darkroom, Quality, Settings, Watched
from stream_seg.web.state import Board

IDLE_S = 5.0
"""A connection that has no request, or makes no progress with an answer, is closed after so long."""
MAX_CONNECTIONS = 512
"""Beyond, the oldest idle connections are closed at once."""
SEND_BUFFER = 262_144
"""Bytes that the kernel holds for a viewer: a slow one sees the newest picture, not those of seconds ago."""
RESET = struct.pack("ii", 1, 0)


class Wishes(Protocol):
    """What the stage `serve` asks for: its keys, the registry of the graph and the streams that it has."""

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
    registry: CollectorRegistry
    streams: Callable[[], Container[str]] | None


@contextmanager
def serving(stage: Wishes, *, token: str | None) -> Iterator[tuple[Board, str]]:
    """The page while the body runs; gives the board to fill and the address.

    Raises OutputError where the address cannot be had, ConfigError for a certificate that is none.
    """
    board = Board(kept=stage.streams)
    darkroom = Darkroom(board, Settings(stage.opacity), Quality(stage.quality, stage.max_width, stage.max_fps))
    server = _Server(stage, board, darkroom, token)
    darkroom.start()
    server.start()
    try:
        yield board, server.address
    finally:
        board.close()
        server.stop()
        darkroom.join(0.5)


class _Server:
    def __init__(self, stage: Wishes, board: Board, darkroom: Darkroom, token: str | None) -> None:
        self._board, self._darkroom = board, darkroom
        self._feeds = Feeds(darkroom, stage.max_clients, self._abort)
        page = Page(board, self._feeds, TokenAuth(token), stage.registry)
        guard = Guard(page.app(), page.door, (stage.host, *stage.hosts))
        self._uvicorn = uvicorn.Server(_settings(stage, guard))
        self._socket = _listening(stage.host, stage.port)
        scheme = "https" if stage.certfile else "http"
        self.address = f"{scheme}://{in_address(stage.host)}:{self._socket.getsockname()[1]}"
        self._up = Event()
        self._thread = Thread(target=self._run, name="page", daemon=True)
        darkroom.publish = self._publish

    def start(self) -> None:
        self._thread.start()
        self._up.wait(5)

    def stop(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(1.5)
        self._socket.close()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 - whatever it is ends the stage, not only the page
            self._board.error = error
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        beside = [self._loop.create_task(task) for task in (self._sweep(), self._sample(), self._watch_end())]
        try:
            await self._uvicorn.serve(sockets=[self._socket])
        finally:
            for task in beside:
                task.cancel()

    def _publish(self, watched: Watched, picture: bytes) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has just ended
            self._loop.call_soon_threadsafe(self._feeds.show, watched, picture)

    def _connections(self) -> list[H11Protocol]:
        return [c for c in self._uvicorn.server_state.connections if isinstance(c, H11Protocol)]

    def _abort(self, scope: Scope) -> None:
        for connection in self._connections():
            if connection.client == scope["client"]:
                _hang_up(connection)

    async def _watch_end(self) -> None:
        while not self._uvicorn.should_exit:
            self._up.set() if self._uvicorn.started else None
            await asyncio.sleep(0.02)
        for connection in self._connections():
            _hang_up(connection)

    async def _sample(self) -> None:
        while True:
            self._board.sample()
            await asyncio.sleep(1)

    async def _sweep(self) -> None:
        """Close connections that do nothing: uvicorn waits for the end of a request's head for ever."""
        idle: dict[H11Protocol, tuple[object, float]] = {}
        while True:
            now, before, idle = time.monotonic(), idle, {}
            for connection in self._connections():
                if connection.cycle is None or connection.cycle.response_complete:
                    doing = id(connection.cycle), connection.transport.get_write_buffer_size()
                    was, since = before.get(connection, (None, now))
                    idle[connection] = doing, since if was == doing else now
            ages = sorted((since, id(connection), connection) for connection, (_, since) in idle.items())
            too_many = max(0, len(self._connections()) - MAX_CONNECTIONS)
            for rank, (since, _, connection) in enumerate(ages):
                if rank < too_many or now - since > IDLE_S:
                    _hang_up(connection)
            await asyncio.sleep(0.25)


def _hang_up(connection: H11Protocol) -> None:
    """Close at once: an ordinary close waits, here and in the kernel, until the viewer has read what it was sent."""
    connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.transport.abort()


def _settings(stage: Wishes, guard: Guard) -> uvicorn.Config:
    config = uvicorn.Config(
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
        ssl_certfile=stage.certfile,
        ssl_keyfile=stage.keyfile and str(stage.keyfile),
    )
    try:
        config.load()
    except (ssl.SSLError, OSError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"serve: certfile {stage.certfile}, keyfile {stage.keyfile}: {reason}") from error
    return config


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"serve: cannot serve on {without_secrets(host)}:{port}: {reason}; choose another port or host"
        ) from error
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return listening
