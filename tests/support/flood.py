"""Misbehaving clients as a program of its own: `python flood.py PORT TOKEN SECONDS STALLED SLOW`. Prints JSON counts.

STALLED clients request a live stream and read nothing, SLOW clients never finish their request headers. In addition,
50 metrics requests and 50 wrong tokens are sent per second. It ends after SECONDS, or when the server has closed all
those connections, but after a minute at the latest.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import Counter

MAX_S = 60.0
STREAM_PATH = "/api/sources/camera/stream.mjpg?view=original"
TCP_ESTABLISHED = 1


def encode_request(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def open_connection(port: int, content: bytes) -> socket.socket:
    """Connect to a port of 127.0.0.1 with a small receive buffer and send `content`."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    connection.connect(("127.0.0.1", port))
    connection.sendall(content)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Return True if the server has closed the connection, without reading what it sent."""
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != TCP_ESTABLISHED


async def fetch_status(port: int, path: str, token: str, client_address: str) -> int:
    """Send a GET request from `client_address`, read the whole answer and return its status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(client_address, 0))
    writer.write(encode_request(path, token).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    status = int((await reader.read(64)).split()[1])
    while await reader.read(65536):
        pass
    writer.close()
    return status


async def main(port: int, token: str, seconds: float, stalled: int, slow: int) -> None:
    connections = {
        "stalled": [open_connection(port, encode_request(STREAM_PATH, token)) for _ in range(stalled)],
        "slow": [open_connection(port, b"GET / HTTP/1.1\r\nHost: 127") for _ in range(slow)],
    }
    open_at_start = count_open(connections)
    start_s, now_s, last_open_s = time.monotonic(), 0.0, dict.fromkeys(connections, 0.0)
    tasks: list[asyncio.Task[int]] = []
    while now_s < seconds or (any(count_open(connections).values()) and now_s < MAX_S):
        tasks.append(asyncio.create_task(fetch_status(port, "/metrics", token, "127.0.0.1")))
        tasks.append(asyncio.create_task(fetch_status(port, "/api/sources", "a wrong token", "127.0.0.2")))
        await asyncio.sleep(0.02)
        now_s = time.monotonic() - start_s
        for kind, open_count in count_open(connections).items():
            last_open_s[kind] = now_s if open_count else last_open_s[kind]
    statuses = Counter(await asyncio.gather(*tasks))
    counts = {"open_at_start": open_at_start, "last_open_s": last_open_s, "open_at_end": count_open(connections)}
    print(json.dumps({**counts, "statuses": statuses}))


def count_open(connections: dict[str, list[socket.socket]]) -> dict[str, int]:
    """Return the number of open connections of each kind."""
    return {kind: sum(not is_closed(one) for one in group) for kind, group in connections.items()}


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:4]), *map(int, sys.argv[4:])))
