"""Whether an RTSP server sends its readers elsewhere. FFmpeg follows such an answer, and no option of it forbids that;
so the server is asked first, with the questions that FFmpeg will ask (RFC 2326, sections 10.1 and 10.2).

They carry no password: a server that sends elsewhere only who has given his is not found out.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

PORTS = {"rtsp": 554, "rtsps": 322}
ELSEWHERE = re.compile(rb"RTSP/\d\.\d +3\d\d\b")
LINES, LINE = 64, 1024
"""Of an answer, what is read at most: lines, and bytes of each."""


@contextmanager
def asked_first(address: str, *, timeout_s: float) -> Iterator[bool]:
    """Whether the server at an rtsp:// or rtsps:// address sends its readers elsewhere. False, too, where it cannot be
    asked: whoever opens it says why. Raises TimeoutError where no answer comes in time.

    The connection is held meanwhile: some servers make the stream when it is first asked for, take it down with its
    last reader, and refuse who comes in between.
    """
    parts = urlsplit(address)
    place = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    with ExitStack() as held:
        try:
            line = held.enter_context(socket.create_connection((parts.hostname or "", _port(address)), timeout_s))
            if parts.scheme.lower() == "rtsps":
                line = held.enter_context(_unverified().wrap_socket(line, server_hostname=parts.hostname))
            answers = held.enter_context(line.makefile("rb"))
            for number, method in enumerate(("OPTIONS", "DESCRIBE"), start=1):
                line.sendall(f"{method} {place} RTSP/1.0\r\nCSeq: {number}\r\n\r\n".encode())
                if elsewhere := ELSEWHERE.match(_status(answers)) is not None:
                    break
        except TimeoutError:
            raise
        except (OSError, ValueError):  # no such host, no such port, no RTSP
            elsewhere = False
        yield elsewhere


def _port(address: str) -> int:
    parts = urlsplit(address)
    return parts.port or PORTS[parts.scheme.lower()]


def _status(answers: BinaryIO) -> bytes:
    """The first line of an answer, which is read to the end of its head."""
    status = answers.readline(LINE)
    for _ in range(LINES):
        if not answers.readline(LINE).strip():
            break
    return status


def _unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg asks for no better."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
