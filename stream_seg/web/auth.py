"""Who may ask for what: in front of the whole application, before anything of it runs.

* A `Host` that is neither an address nor a known name is refused: a foreign name that was pointed at this machine (DNS
  rebinding) cannot read the page.
* What a page of another site asks for is refused (Sec-Fetch-Site, Origin), and nothing of this page may be framed.
* Where there is a token, only who knows it gets further: `Authorization: Bearer`, or a cookie that the login gives.
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

from stream_seg.web.hosts import known_host

COOKIE = "stream_seg_session"
SESSION_S = 12 * 3600
FAILURES, FORGIVEN_S = 5, 60.0
"""So many wrong tokens from one address are answered; then one more every FORGIVEN_S / FAILURES seconds."""
KEPT = 4096
"""Addresses whose failures are remembered."""
OPEN = ("/healthz", "/readyz", "/login")
"""What needs no token, besides the files of the page: they hold nothing of the pipeline."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass
class Bucket:
    """Failures of each address, leaking at FAILURES per FORGIVEN_S."""

    clock: Callable[[], float] = time.monotonic
    _level: dict[str, tuple[float, float]] = field(default_factory=dict)

    def retry_after_s(self, address: str) -> float:
        """Seconds until the address may try again; 0 where it may now."""
        return max(0.0, (self._now(address) + 1 - FAILURES) * FORGIVEN_S / FAILURES)

    def fail(self, address: str) -> None:
        """Note a wrong token."""
        level = self._now(address) + 1
        self._level.pop(self._key(address), None)
        self._level[self._key(address)] = level, self.clock()  # at the end: the oldest are forgotten first
        while len(self._level) > KEPT:
            del self._level[next(iter(self._level))]

    def _now(self, address: str) -> float:
        level, at = self._level.get(self._key(address), (0.0, 0.0))
        return max(0.0, level - (self.clock() - at) * FAILURES / FORGIVEN_S)

    @staticmethod
    def _key(address: str) -> str:
        try:
            ip = ip_address(address)
        except ValueError:
            return address
        if ip.version == 4:
            return str(ip)
        # Of IPv6 the network: one household has 2**64 addresses.
        return str(ip.ipv4_mapped or ip_network((int(ip), 64), strict=False))


class TokenAuth:
    """Check tokens and issue session cookies. Without a token every request is allowed.

    Starlette's SessionMiddleware cannot serve here: its Secure flag is fixed, this one depends on a proxy's scheme.
    """

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.failures = Bucket()
        self._signer = TimestampSigner(secrets.token_bytes(32))  # sessions end with the process

    def is_valid(self, token: str) -> bool:
        """Return True for the right token, in a time that depends on neither token."""
        return self.token is None or hmac.compare_digest(self._sign(token), self._sign(self.token))

    def create_session(self) -> str:
        """Return a cookie value that is valid for SESSION_S."""
        return self._signer.sign("viewer").decode()

    def is_session(self, cookie: str) -> bool:
        """Return True for a cookie value of this process that has not expired."""
        return self._signer.validate(cookie, max_age=SESSION_S)

    def _sign(self, text: str) -> bytes:
        return self._signer.get_signature(text.encode(errors="surrogateescape"))


@dataclass
class Guard:
    """The application behind the door."""

    app: ASGIApp
    door: TokenAuth
    hosts: Collection[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answer = self._refusal(scope)

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await (answer or self.app)(scope, receive, sealed)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if not known_host(headers.get("host", ""), self.hosts):
            return refused(421, "this page does not answer to that host name; name it in hosts")
        if not _from_here(headers, scope):
            return refused(403, "asked for by another site's page")
        path: str = scope["path"]
        if self.door.token is None or path in OPEN or path.startswith("/static/"):
            return None
        return self._unknown(headers, scope)

    def _unknown(self, headers: Headers, scope: Scope) -> Response | None:
        """None for who has shown the token."""
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return wrong_token(self.door, given.strip(), scope)
        if self.door.is_session(cookie_parser(headers.get("cookie", "")).get(COOKIE, "")):
            return None
        if scope["path"] == "/":
            return RedirectResponse("/login", 303)
        return refused(401, "a token is needed", {"WWW-Authenticate": "Bearer"})


def wrong_token(door: TokenAuth, given: str, scope: Scope) -> Response | None:
    """None for the token; else the refusal, which is counted."""
    address = (scope.get("client") or ("",))[0]
    wait_s = door.failures.retry_after_s(address)
    if wait_s:
        return refused(429, "too many wrong tokens", {"Retry-After": str(int(wait_s) + 1)})
    if door.is_valid(given):
        return None
    door.failures.fail(address)
    return refused(401, "that is not the token", {"WWW-Authenticate": "Bearer"})


def refused(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error as the API says it: {"error": message}."""
    return JSONResponse({"error": message}, status, headers=headers)


def _from_here(headers: Headers, scope: Scope) -> bool:
    """Whether a request comes from the page itself, from a user who typed the address, or from no browser at all."""
    reading = scope["method"] in ("GET", "HEAD")
    site = headers.get("sec-fetch-site", "none")
    if site not in ("same-origin", "none"):
        return reading and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    origin = headers.get("origin")
    if reading or origin is None:
        return True
    scheme, host = urlsplit(origin)[:2]
    # A proxy with TLS passes plain requests on; the other way round it would be a page that anybody may have changed.
    return host == headers.get("host", "") and scheme in (scope["scheme"], "https")
