"""Detect RTSP servers that redirect their clients. FFmpeg follows a redirect, and no option of it forbids that; so the
server is asked first, with FFmpeg's own requests (RFC 2326, sections 10.1 and 10.2), and its responses are read as
FFmpeg reads them: the status is the second word, whatever the first one is.

The probe sends no password. A server may answer the second client in another way than the first: this finds servers
that have moved, and does not stop hostile ones.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from urllib.parse import urlsplit, urlunsplit

import av

PORTS = {"rtsp": 554, "rtsps": 322}
REQUESTS = (("OPTIONS",), ("DESCRIBE", "Accept: application/sdp"))
"""Method and extra header lines."""
REDIRECT_STATUS = re.compile(rb"\s*\S+\s+[+0]*3\d\d(?!\d)")
MAX_RESPONSE_BYTES = 1 << 16
"""A server whose response is longer counts as one that redirects."""


class _TooLongError(Exception):
    """A response is longer than MAX_RESPONSE_BYTES."""


@contextmanager
def probe_redirect(address: str, *, timeout_s: float) -> Iterator[bool]:
    """Yield True if the server at an rtsp:// or rtsps:// address redirects its clients.

    Yields False as well if the server cannot be asked: opening the address then tells why. Raises TimeoutError if its
    responses do not arrive in time. The connection stays open in the body: some servers create the stream for their
    first client, remove it with the last one, and refuse clients in between.
    """
    deadline_s = time.monotonic() + timeout_s
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(closing(_Connection(address, deadline_s=deadline_s)))
            redirects = any(REDIRECT_STATUS.match(connection.request(*request)) for request in REQUESTS)
        except TimeoutError:
            raise
        except _TooLongError:
            redirects = True
        except (OSError, ValueError):  # no such host, no such port, no RTSP
            redirects = False
        yield redirects


class _Connection:
    """A connection to an RTSP server that raises TimeoutError for whatever is not over at `deadline_s`."""

    def __init__(self, address: str, *, deadline_s: float) -> None:
        parts, self._deadline_s = urlsplit(address), deadline_s
        scheme, host = parts.scheme.lower(), parts.hostname or ""
        self._socket = socket.create_connection((host, parts.port or PORTS[scheme]), self._remaining_s())
        if scheme == "rtsps":  # not verified: cameras sign their own certificates, and FFmpeg checks none
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._socket = context.wrap_socket(self._socket, server_hostname=host)
        self.close = self._socket.close
        self._url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        self._cseq, self._buffer = 0, b""

    def request(self, method: str, *headers: str) -> bytes:
        """Send a request. Return the head of the response, or its beginning if the server closes the connection."""
        self._cseq += 1
        version = ".".join(map(str, av.library_versions["libavformat"]))
        client = f"CSeq: {self._cseq}\r\nUser-Agent: Lavf{version}"
        self._socket.sendall("\r\n".join([f"{method} {self._url} RTSP/1.0", *headers, client, "", ""]).encode())
        while self._fill(1) and self._buffer.startswith(b"$"):  # a packet of the stream between the responses
            self._fill(4)
            self._skip(4 + int.from_bytes(self._buffer[2:4], "big"))
        while not (end := re.search(rb"\r?\n\r?\n", self._buffer)):
            if not self._fill(len(self._buffer) + 1):
                return self._buffer
        head, self._buffer = self._buffer[: end.start()], self._buffer[end.end() :]
        if body := re.search(rb"^content-length:\s*(\d{1,9})", head, re.IGNORECASE | re.MULTILINE):
            self._skip(int(body[1]))
        return head

    def _skip(self, length: int) -> None:
        self._fill(length)
        self._buffer = self._buffer[length:]

    def _fill(self, length: int) -> bool:
        """Receive until the buffer has `length` bytes. Return False if the server closes the connection before."""
        while len(self._buffer) < length:
            if len(self._buffer) > MAX_RESPONSE_BYTES:
                raise _TooLongError
            self._socket.settimeout(self._remaining_s())
            data = self._socket.recv(4096)
            if not data:
                return False
            self._buffer += data
        return True

    def _remaining_s(self) -> float:
        remaining_s = self._deadline_s - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        return remaining_s
