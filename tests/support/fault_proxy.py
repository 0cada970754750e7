"""What stands between a camera and who watches it, for tests: passes bytes on, or does to them what networks do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from threading import Thread
from typing import Literal, TypeAlias

Mode: TypeAlias = Literal["pass", "hang", "half", "refuse"]
MODES: tuple[Mode, ...] = ("hang", "half", "refuse")
PIECE = 4096


class Pump:
    """`mode` holds for all connections from now on: bytes are passed, stop, end in the middle of a picture (and do so
    again with every new connection), or nobody gets in."""

    def __init__(self, target: int) -> None:
        self.mode: Mode = "pass"
        self.port = 0
        self._target = target

    async def serve(self, started: SimpleQueue[Callable[[], object]]) -> None:
        """Until somebody calls what is put into `started`."""
        loop, end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.put(partial(loop.call_soon_threadsafe, end.set))
        await end.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode == "refuse":
            writer.transport.abort()
            return
        there, to_there = await asyncio.open_connection("127.0.0.1", self._target)
        up = asyncio.ensure_future(self._passed(reader, to_there, damaged=False))
        down = asyncio.ensure_future(self._passed(there, writer, damaged=True))
        try:
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
            down.cancel()
            writer.transport.abort()
            to_there.transport.abort()

    async def _passed(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, damaged: bool) -> None:
        """From one side to the other until either ends."""
        try:
            while piece := await reader.read(PIECE):
                while self.mode == "hang":
                    await asyncio.sleep(0.01)
                if damaged and self.mode in ("half", "refuse"):
                    writer.write(piece[: len(piece) // 2])
                    await writer.drain()
                    return
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            return


@contextmanager
def pumping(target: int) -> Iterator[Pump]:
    """A pump in front of a port of 127.0.0.1 while the body runs."""
    pump, started = Pump(target), SimpleQueue[Callable[[], object]]()
    thread = Thread(target=lambda: asyncio.run(pump.serve(started)), name="pump")
    thread.start()
    end = started.get(timeout=10)
    try:
        yield pump
    finally:
        end()
        thread.join(10)
