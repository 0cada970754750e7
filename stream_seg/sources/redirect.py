"""Whether an RTSP server sends its readers elsewhere. FFmpeg follows such an answer, and no option of it forbids that;
so the server is asked first, with the question that FFmpeg will ask (DESCRIBE, RFC 2326, section 10.2).

The question carries no password: a server that sends elsewhere only who has given his is not found out.
"""

from __future__ import annotations

import re
import socket
import ssl
from urllib.parse import urlsplit, urlunsplit

PORTS = {"rtsp": 554, "rtsps": 322}
ELSEWHERE = re.compile(rb"RTSP/\d\.\d +3\d\d\b")
LONGEST = 64
"""Bytes of an answer's first line that are looked at."""


def sends_elsewhere(address: str, *, timeout_s: float) -> bool:
    """Ask an rtsp:// or rtsps:// server. False, too, where it cannot be asked: whoever opens it says why.

    Raises TimeoutError where no answer comes in time.
    """
    parts = urlsplit(address)
    try:
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme.lower()]
    except ValueError:  # a port that is none
        return False
    place = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    question = f"DESCRIBE {urlunsplit(place)} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout_s) as line:
            if parts.scheme.lower() == "rtsps":
                line = _unverified().wrap_socket(line, server_hostname=host)
            line.sendall(question.encode())
            with line.makefile("rb") as answer:
                return ELSEWHERE.match(answer.readline(LONGEST)) is not None
    except TimeoutError:
        raise
    except (OSError, UnicodeError):
        return False


def _unverified() -> ssl.SSLContext:
    """Cameras sign their own certificates, and FFmpeg asks for no better."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
