"""Whether an RTSP server sends its readers elsewhere. FFmpeg follows such an answer, and no option of it forbids that;
so the server is asked first, with FFmpeg's questions (RFC 2326, sections 10.1 and 10.2), and its answers are read as
FFmpeg reads them: the status is the second word, whatever the first one is.

No password goes along, and a server may answer the second reader in another way than the first: this finds servers that
have moved, and is no wall against hostile ones.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit, urlunsplit

import av

PORTS = {"rtsp": 554, "rtsps": 322}
QUESTIONS: tuple[tuple[str, ...], ...] = (("OPTIONS",), ("DESCRIBE", "Accept: application/sdp"))
"""The method, and header lines of its own."""
ELSEWHERE = re.compile(rb"\s*\S+\s+[+0]*3\d\d(?!\d)")
LONGEST = 1 << 16
"""Bytes of an answer. Of a longer one the worst is assumed."""


class _EndlessError(Exception):
    """An answer is longer than anybody needs."""


@contextmanager
def asked_first(address: str, *, timeout_s: float) -> Iterator[bool]:
    """Whether the server at an rtsp:// or rtsps:// address sends its readers elsewhere. False, too, where it cannot be
    asked: whoever opens it says why. Raises TimeoutError where its answers do not come in time.

    The connection is held meanwhile: some servers make the stream when it is first asked for, take it down with its
    last reader, and refuse who comes in between.
    """
    deadline_s = time.monotonic() + timeout_s
    with ExitStack() as held:
        try:
            line = held.enter_context(_Line(address, deadline_s=deadline_s))
            elsewhere = any(ELSEWHERE.match(line.asked(*question)) for question in QUESTIONS)
        except TimeoutError:
            raise
        except _EndlessError:
            elsewhere = True
        except (OSError, ValueError):  # no such host, no such port, no RTSP
            elsewhere = False
        yield elsewhere


class _Line:
    """A connection to an RTSP server. Everything on it has to be over at `deadline_s`, or raises TimeoutError."""

    def __init__(self, address: str, *, deadline_s: float) -> None:
        parts, self._deadline_s = urlsplit(address), deadline_s
        scheme, host = parts.scheme.lower(), parts.hostname or ""
        self._line = socket.create_connection((host, parts.port or PORTS[scheme]), self._left_s())
        if scheme == "rtsps":
            self._line = _unverified().wrap_socket(self._line, server_hostname=host)
        self._place = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._number, self._got = 0, b""

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()

    def asked(self, method: str, *headers: str) -> bytes:
        """The head of the answer, or what there is of it where the server hangs up."""
        self._number += 1
        version = ".".join(map(str, av.library_versions["libavformat"]))
        who = f"CSeq: {self._number}\r\nUser-Agent: Lavf{version}"
        self._line.sendall("\r\n".join([f"{method} {self._place} RTSP/1.0", *headers, who, "", ""]).encode())
        while self._at_least(1) and self._got.startswith(b"$"):  # a packet of the stream, among the answers
            self._at_least(4)
            self._skip(4 + int.from_bytes(self._got[2:4], "big"))
        while not (end := re.search(rb"\r?\n\r?\n", self._got)):
            if not self._at_least(len(self._got) + 1):
                return self._got
        head, self._got = self._got[: end.start()], self._got[end.end() :]
        if body := re.search(rb"^content-length:\s*(\d{1,9})", head, re.IGNORECASE | re.MULTILINE):
            self._skip(int(body[1]))
        return head

    def _skip(self, length: int) -> None:
        self._at_least(length)
        self._got = self._got[length:]

    def _at_least(self, length: int) -> bool:
        """Whether so many bytes are there, now or after some waiting; False where the server hangs up before."""
        while len(self._got) < length:
            if len(self._got) > LONGEST:
                raise _EndlessError
            self._line.settimeout(self._left_s())
            more = self._line.recv(4096)
            if not more:
                return False
            self._got += more
        return True

    def _left_s(self) -> float:
        left_s = self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        return left_s


def _unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg asks for no better."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
