"""Access control in front of the whole application.

* A `Host` header that is neither an IP address nor an allowed name is rejected, which stops DNS rebinding.
* Requests made by pages of other sites are rejected (Sec-Fetch-Site, Origin), and no site may frame the page.
* With a token, requests need `Authorization: Bearer TOKEN` or the session cookie that the login form sets.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from itsdangerous import TimestampSigner
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream_seg.web.hosts import is_allowed_host

COOKIE = "stream_seg_session"
SESSION_S = 12 * 3600
MAX_FAILURES, DRAIN_S = 5, 12.0
"""Invalid tokens allowed per address at once; then one more every DRAIN_S."""
MAX_ADDRESSES = 4096
"""Addresses whose failures are remembered."""
PUBLIC_PATHS = ("/healthz", "/readyz", "/login")
"""Paths that need no token, like the static files: they reveal nothing about the pipeline."""
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


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


class TokenAuth:
    """Check tokens and issue session cookies. Without a token every request is allowed.

    Starlette's SessionMiddleware does not fit: its Secure flag is fixed, ours follows the scheme of a TLS proxy.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.failures = FailureLimiter()
        self._signer = TimestampSigner(secrets.token_bytes(32))  # sessions end with the process

    def is_valid(self, token: str) -> bool:
        """Return True for the right token. The time taken does not reveal how much of a wrong one is right."""
        return self.token is None or hmac.compare_digest(self._sign(token), self._sign(self.token))

    def reject(self, token: str, scope: Scope) -> Response | None:
        """Return None for the right token, else the error response. Failures are counted per client address."""
        address = (scope.get("client") or ("",))[0]
        wait_s = self.failures.retry_after_s(address)
        if wait_s:
            return error_response(429, "too many invalid tokens", {"Retry-After": str(int(wait_s) + 1)})
        if self.is_valid(token):
            return None
        self.failures.add_failure(address)
        return error_response(401, "invalid token", {"WWW-Authenticate": "Bearer"})

    def create_session(self) -> str:
        """Return a cookie value that is valid for SESSION_S."""
        return self._signer.sign("viewer").decode()

    def is_session(self, cookie: str) -> bool:
        """Return True for a cookie value of this process that has not expired."""
        return self._signer.validate(cookie, max_age=SESSION_S)

    def _sign(self, text: str) -> bytes:
        return self._signer.get_signature(text.encode(errors="surrogateescape"))


@dataclass
class AccessGuard:
    """ASGI middleware that rejects requests before `app` sees them and adds SECURITY_HEADERS to every response."""

    app: ASGIApp
    auth: TokenAuth
    hosts: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (self._reject(scope) or self.app)(scope, receive, send_secured)

    def _reject(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        if not is_allowed_host(headers.get("host", ""), self.hosts):
            return error_response(421, "host name not allowed; add it to hosts of the stage serve")
        if not _is_own_request(headers, scope):
            return error_response(403, "cross-site request rejected")
        if self.auth.token is None or path in PUBLIC_PATHS or path.startswith("/static/"):
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.auth.reject(token.strip(), scope)
        if self.auth.is_session(cookie_parser(headers.get("cookie", "")).get(COOKIE, "")):
            return None
        if path == "/":
            return RedirectResponse("/login", 303)
        return error_response(401, "token required", {"WWW-Authenticate": "Bearer"})


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error in the API's format: {"error": message}."""
    return JSONResponse({"error": message}, status, headers=headers)


def _is_own_request(headers: Headers, scope: Scope) -> bool:
    """Return True for requests of the page itself, of a user who entered the URL and of programs."""
    reading = scope["method"] in ("GET", "HEAD")
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        return reading and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    origin = headers.get("origin")
    if reading or origin is None:
        return True
    scheme, host = urlsplit(origin)[:2]
    # Behind a TLS proxy an https origin reaches us over http. An http origin over https could have been tampered with.
    return host == headers.get("host", "") and scheme in (scope["scheme"], "https")
