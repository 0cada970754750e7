"""Access to servers that other machines can reach: tokens with limited failures, and TLS.

The page and the metrics server use it. It needs none of the packages of the extra `web`.
"""

from __future__ import annotations

import hmac
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import ip_address, ip_network
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from stream_seg.errors import ConfigError, StreamSegError
from stream_seg.redact import name_secret_file

MIN_CHARS = 12
"""Shortest token."""
MAX_FAILURES, DRAIN_S = 5, 12.0
"""Invalid tokens allowed per address at once; then one more every DRAIN_S."""
MAX_ADDRESSES = 4096
"""Addresses whose failures are remembered."""


class Rejection(NamedTuple):
    """The answer to a request without the right token."""

    status: int
    message: str
    headers: dict[str, str]


NO_TOKEN = Rejection(401, "token required", {"WWW-Authenticate": "Bearer"})


@dataclass
class FailureLimiter:
    """Leaky bucket of failed logins per address: drains one per DRAIN_S, in bounded memory.

    The package `limits` does not fit: its memory store follows the wall clock, is unbounded and starts threads.
    """

    clock: Callable[[], float] = time.monotonic
    _empty_s: dict[str, float] = field(default_factory=dict)  # the time at which the bucket will be empty

    def retry_after_s(self, address: str) -> float:
        """Return the seconds until the address may try again, 0 if it may now."""
        full_s = self._empty_s.get(self._key(address), 0.0) - (MAX_FAILURES - 1) * DRAIN_S
        return max(0.0, full_s - self.clock())

    def add_failure(self, address: str) -> None:
        """Count an invalid token."""
        key = self._key(address)
        empty_s = max(self._empty_s.pop(key, 0.0), self.clock()) + DRAIN_S
        self._empty_s[key] = empty_s  # appended, so that the oldest are dropped first
        while len(self._empty_s) > MAX_ADDRESSES:
            del self._empty_s[next(iter(self._empty_s))]

    @staticmethod
    def _key(address: str) -> str:
        try:
            ip = ip_address(address)
        except ValueError:
            return address
        # The /64 network of an IPv6 address: one household has 2**64 addresses.
        return str(ip if ip.version == 4 else ip.ipv4_mapped or ip_network((int(ip), 64), strict=False))


class TokenVerifier:
    """Check tokens, from any thread. Without a token every request is allowed."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self._failures, self._lock = FailureLimiter(), Lock()

    def is_valid(self, token: str) -> bool:
        """Return True for the right token. The time taken does not reveal how much of a wrong one is right."""
        return self.token is None or hmac.compare_digest(_digest(token), _digest(self.token))

    def reject(self, token: str, address: str) -> Rejection | None:
        """Return None for the right token, else the answer. Failures are counted per client address."""
        with self._lock:
            wait_s = self._failures.retry_after_s(address)
            if wait_s:
                return Rejection(429, "too many invalid tokens", {"Retry-After": str(int(wait_s) + 1)})
            if self.is_valid(token):
                return None
            self._failures.add_failure(address)
        return Rejection(401, "invalid token", {"WWW-Authenticate": "Bearer"})

    def reject_header(self, authorization: str, address: str) -> Rejection | None:
        """Return None for an `Authorization` header with the right token, else the answer."""
        if self.token is None:
            return None
        token = bearer_token(authorization)
        return NO_TOKEN if token is None else self.reject(token, address)


def bearer_token(authorization: str) -> str | None:
    """Return the token of an `Authorization` header; None for another scheme, and without one."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _digest(text: str) -> bytes:
    return sha256(text.encode(errors="surrogateescape")).digest()


def read_token(file: Path | None, variable: str, *, where: str, error: type[StreamSegError]) -> str | None:
    """Return the token in the first line of a file, or in an environment variable; None without one.

    Raises `error`, in a line that begins with `where`, if it is too short or its file cannot be read.
    """
    token, place = os.environ.get(variable) or None, variable
    if file is not None:
        place = name_secret_file("token_file", file)
        try:
            token = file.read_text(encoding="utf-8").partition("\n")[0].strip()
        except (OSError, UnicodeDecodeError) as failure:
            reason = failure.strerror if isinstance(failure, OSError) else "not UTF-8 text"
            raise error(f"{where}: {place}: {reason}") from failure
    if token is not None and len(token) < MIN_CHARS:
        raise error(f"{where}: {place}: the token has {len(token)} characters; the minimum is {MIN_CHARS}")
    return token


def load_certificate(certfile: Path, keyfile: Path, *, where: str) -> ssl.SSLContext:
    """Return the TLS context of a server. Raises ConfigError for an invalid certificate or key, or an encrypted key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certfile, keyfile, password=lambda: "")  # OpenSSL would ask for it on the terminal
    except (ssl.SSLError, OSError) as error:
        reason = (error.reason if isinstance(error, ssl.SSLError) else error.strerror) or "not accepted by OpenSSL"
        hint = "; a key with a passphrase is not supported" if isinstance(error, ssl.SSLError) else ""
        raise ConfigError(f"{where}: certfile {certfile}, keyfile {keyfile}: {reason}{hint}") from error
    return context
