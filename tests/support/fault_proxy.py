"""A TCP proxy between a camera and its client, which passes bytes on or simulates faults of a network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Literal, TypeAlias

Fault: TypeAlias = Literal["pass", "hang", "half", "refuse"]
FAULTS: tuple[Fault, ...] = ("hang", "half", "refuse")
CHUNK_BYTES = 4096


class FaultProxy:
    """Forward connections to a port of 127.0.0.1. `fault` applies to all connections from now on: bytes are passed, are
    held back, end within an image (again with every new connection), or connections are refused."""

    def __init__(self, target: int) -> None:
        self.fault: Fault = "pass"
        self.port = 0
        self._target = target

    async def serve(self, started: SimpleQueue[Callable[[], object]]) -> None:
        """Put a function that stops the proxy into `started`, and serve until it is called."""
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.put(partial(loop.call_soon_threadsafe, end.set))
        await end.wait()
        server.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault == "refuse":
            writer.transport.abort()
            return
        from_camera, to_camera = await asyncio.open_connection("127.0.0.1", self._target)
        up = asyncio.ensure_future(self._forward(reader, to_camera, faulty=False))
        down = asyncio.ensure_future(self._forward(from_camera, writer, faulty=True))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            down.cancel()
            writer.transport.abort()
            to_camera.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, faulty: bool) -> None:
        """Forward bytes until either side ends."""
        try:
            while chunk := await reader.read(CHUNK_BYTES):
                while self.fault == "hang":
                    await asyncio.sleep(0.01)
                if faulty and self.fault in ("half", "refuse"):
                    writer.write(chunk[: len(chunk) // 2])
                    await writer.drain()
                    return
                writer.write(chunk)
                await writer.drain()
        except ConnectionError:
            return


@contextmanager
def fault_proxy(target: int) -> Iterator[FaultProxy]:
    """Run a proxy in front of a port of 127.0.0.1 during the body."""
    proxy, started = FaultProxy(target), SimpleQueue[Callable[[], object]]()
    thread = Thread(target=lambda: asyncio.run(proxy.serve(started)), name="fault proxy")
    thread.start()
    stop = started.get(timeout=10)
    try:
        yield proxy
    finally:
        stop()
        thread.join(10)
