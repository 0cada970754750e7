"""Access control in front of the whole application.

* A `Host` header that is neither an IP address nor an allowed name is rejected, which stops DNS rebinding.
* Requests made by pages of other sites are rejected (Sec-Fetch-Site, Origin), and no site may frame the page.
* With a token, requests need `Authorization: Bearer TOKEN` or the session cookie that the login form sets.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from itsdangerous import TimestampSigner
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream_seg.web.access import NO_TOKEN, TokenVerifier, bearer_token
from stream_seg.web.hosts import is_allowed_host

COOKIE = "stream_seg_session"
SESSION_S = 12 * 3600
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


class TokenAuth(TokenVerifier):
    """Check tokens and issue session cookies. Without a token every request is allowed.

    Starlette's SessionMiddleware does not fit: its Secure flag is fixed, ours follows the scheme of a TLS proxy.
    """

    def __init__(self, token: str | None) -> None:
        super().__init__(token)
        self._signer = TimestampSigner(secrets.token_bytes(32))  # sessions end with the process

    def create_session(self) -> str:
        """Return a cookie value that is valid for SESSION_S."""
        return self._signer.sign("viewer").decode()

    def is_session(self, cookie: str) -> bool:
        """Return True for a cookie value of this process that has not expired."""
        return self._signer.validate(cookie, max_age=SESSION_S)


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
        token = bearer_token(headers.get("authorization", ""))
        if token is not None:
            rejection = self.auth.reject(token, client_address(scope))
            return None if rejection is None else error_response(*rejection)
        if self.auth.is_session(cookie_parser(headers.get("cookie", "")).get(COOKIE, "")):
            return None
        if path == "/":
            return RedirectResponse("/login", 303)
        return error_response(*NO_TOKEN)


def error_response(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Return an error in the API's format: {"error": message}."""
    return JSONResponse({"error": message}, status, headers=headers)


def client_address(scope: Scope) -> str:
    """Return the IP address that a request comes from."""
    address: str = (scope.get("client") or ("",))[0]
    return address


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
