"""Bad viewers, as a program of its own: `python flood.py PORT TOKEN SECONDS STALLED SLOW`. Prints what became of them.

Stalled viewers ask for a moving picture and read nothing; slow ones never end the head of a request; 50 scrapes and 50
wrong tokens a second come on top.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections import Counter

PICTURE = "/api/sources/camera/stream.mjpg?view=original"


def request(path: str, token: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def connected(port: int, sent: bytes) -> socket.socket:
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    link.connect(("127.0.0.1", port))
    link.sendall(sent)
    return link


def closed(link: socket.socket) -> bool:
    """Whether the other side has hung up, without reading what it sent."""
    state = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return state != 1  # ESTABLISHED


async def asked(port: int, path: str, token: str, address: str) -> int:
    """The status of the answer to a client at `address`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(request(path, token).replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    status = int((await reader.read(64)).split()[1])
    while await reader.read(65536):
        pass
    writer.close()
    return status


async def main(port: int, token: str, seconds: float, stalled: int, slow: int) -> None:
    links = {
        "stalled": [connected(port, request(PICTURE, token)) for _ in range(stalled)],
        "slow": [connected(port, b"GET / HTTP/1.1\r\nHost: 127") for _ in range(slow)],
    }
    began, ended = time.monotonic(), dict.fromkeys(links, 0.0)
    early = Counter[str]()
    tasks: list[asyncio.Task[int]] = []
    while time.monotonic() < began + seconds:
        tasks.append(asyncio.create_task(asked(port, "/metrics", token, "127.0.0.1")))
        tasks.append(asyncio.create_task(asked(port, "/api/sources", "a wrong token", "127.0.0.2")))
        await asyncio.sleep(0.02)
        at = time.monotonic() - began
        for kind, those in links.items():
            open_ = sum(not closed(link) for link in those)
            early[kind] = open_ if at < 1 else early[kind]
            ended[kind] = at if open_ else ended[kind]
    codes = Counter(await asyncio.gather(*tasks))
    left = {kind: sum(not closed(link) for link in those) for kind, those in links.items()}
    print(json.dumps({"open_at_1s": early, "last_open_s": ended, "left": left, "codes": codes}))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], *map(float, sys.argv[3:4]), *map(int, sys.argv[4:])))
