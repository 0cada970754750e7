"""The ASGI application: the page, its static files and its JSON API."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from importlib import resources
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from stream_seg.schema.validation import describe_unknown
from stream_seg.web import views
from stream_seg.web.auth import COOKIE, SESSION_S, TokenAuth, error_response
from stream_seg.web.mjpeg import MjpegStreams
from stream_seg.web.renderer import DrawSettings, Renderer, ViewKey, encode_jpeg, encode_png, render
from stream_seg.web.requests import handle_http_error, json_response, parse_view, parse_width, read_body, read_settings
from stream_seg.web.schemas import ViewSettings, openapi
from stream_seg.web.state import PageState, StreamState

STATIC = resources.files("stream_seg.web") / "static"
FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "charts.js": "text/javascript",
    "login.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
CACHE_S = 0.2
"""Metrics, statistics and frames are recomputed at most every CACHE_S, whatever the request rate."""
MAX_PAUSE_S = 0.3


class Page:
    """HTTP endpoints of the page. `streams` serves the live streams, `auth` the login."""

    def __init__(self, state: PageState, streams: MjpegStreams, auth: TokenAuth, registry: CollectorRegistry) -> None:
        self.state, self.streams, self.auth, self.registry = state, streams, auth, registry
        self._lock = Lock()
        self._cache: dict[str, tuple[float, Any]] = {}

    @property
    def renderer(self) -> Renderer:
        """The renderer with the current draw settings."""
        return self.streams.renderer

    def app(self) -> Starlette:
        """Return the application with its routes."""
        get: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": partial(self.file, name="index.html", media_type="text/html"),
            "/login": partial(self.file, name="login.html", media_type="text/html"),
            "/healthz": self.health,
            "/readyz": self.ready,
            "/metrics": self.metrics,
            "/api/openapi.json": self.openapi,
            "/api/sources": self.sources,
            "/api/classes": self.classes,
            "/api/stats": self.stats,
            "/api/view": self.view,
            "/api/sources/{id:path}/stream.mjpg": self.stream,
            "/api/sources/{id:path}/frame.jpg": self.frame,
            "/api/sources/{id:path}/snapshot.png": self.snapshot,
        }
        routes = [Route(path, endpoint) for path, endpoint in get.items()]
        routes += [
            Route(f"/static/{name}", partial(self.file, name=name, media_type=media_type))
            for name, media_type in FILES.items()
        ]
        routes += [
            Route("/api/view", self.change_view, methods=["PUT"]),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: handle_http_error})

    async def file(self, _: Request, *, name: str, media_type: str) -> Response:
        headers = {"Cache-Control": "no-cache"}
        return Response((STATIC / name).read_bytes(), media_type=media_type, headers=headers)

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        ready = self.state.is_ready()
        return PlainTextResponse("ready\n" if ready else "no source is up\n", 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        text = await self._cached("metrics", lambda: generate_latest(self.registry))
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def openapi(self, _: Request) -> Response:
        return JSONResponse(openapi())

    async def sources(self, _: Request) -> Response:
        return json_response(await self._cached("sources", lambda: views.list_sources(self.state)))

    async def classes(self, _: Request) -> Response:
        return json_response(await self._cached("classes", lambda: views.list_classes(self.state)))

    async def stats(self, _: Request) -> Response:
        stats = await self._cached("stats", lambda: views.collect_stats(self.state, self.registry))
        streams = self.streams
        page = {"viewers": streams.viewers, "max_viewers": streams.max_viewers, "login": self.auth.token is not None}
        return json_response(stats.model_copy(update=page))

    async def view(self, _: Request) -> Response:
        settings = self.renderer.settings
        return json_response(ViewSettings(opacity=settings.opacity, hidden=sorted(settings.hidden)))

    async def change_view(self, request: Request) -> Response:
        settings, names = await read_settings(request), views.list_class_names(self.state)
        for name in settings.hidden:
            if name not in names:
                raise HTTPException(422, f"hidden: {describe_unknown('class', name, names)}")
        self.renderer.settings = DrawSettings(settings.opacity, frozenset(settings.hidden))
        return await self.view(request)

    async def stream(self, request: Request) -> Response:
        key = self._find_stream(request)[0], parse_view(request)
        if request.method == "HEAD":
            return Response(media_type="multipart/x-mixed-replace")
        if self.streams.full:
            message = f"viewer limit reached ({self.streams.max_viewers}); try again later"
            return error_response(503, message, {"Retry-After": "5"})
        return _LiveResponse(self.streams, key)

    async def frame(self, request: Request) -> Response:
        name, stream = self._find_stream(request)
        view, width, settings = parse_view(request), parse_width(request), self.renderer.settings
        quality = self.renderer.limits.jpeg_quality
        jpeg = await self._cached(
            f"{view} {width} {name}",
            lambda: encode_jpeg(render(stream.frame, view, settings, max_width=width), quality),
        )
        return Response(jpeg, media_type="image/jpeg")

    async def snapshot(self, request: Request) -> Response:
        name, stream = self._find_stream(request)
        view, settings, frame = parse_view(request), self.renderer.settings, stream.frame
        png = await run_in_threadpool(self._throttled, lambda: encode_png(render(frame, view, settings)))
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)
        return Response(
            png,
            media_type="image/png",
            headers={"Content-Disposition": f'attachment; filename="{stem}_{frame.seq:06}_{view}.png"'},
        )

    async def login(self, request: Request) -> Response:
        token = parse_qs((await read_body(request)).decode(errors="replace")).get("token", [""])[0]
        rejection = self.auth.reject(token, request.scope)
        if rejection is not None:
            return RedirectResponse(f"/login?error={rejection.status_code}", 303)
        response, session = RedirectResponse("/", 303), self.auth.create_session()
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        response.set_cookie(COOKIE, session, SESSION_S, httponly=True, samesite="strict", secure=secure)
        return response

    async def logout(self, _: Request) -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    def _find_stream(self, request: Request) -> tuple[str, StreamState]:
        name, streams = request.path_params["id"], self.state.streams()
        if name not in streams:
            raise HTTPException(404, describe_unknown("source", name, streams) if streams else "no source has started")
        return name, streams[name]

    async def _cached(self, key: str, compute: Callable[[], Any]) -> Any:
        """Return a value computed less than CACHE_S ago, or compute it outside the event loop."""
        return await run_in_threadpool(self._throttled, partial(self._compute_if_old, key, compute))

    def _compute_if_old(self, key: str, compute: Callable[[], Any]) -> Any:
        now_s = time.monotonic()
        self._cache = {k: entry for k, entry in self._cache.items() if now_s - entry[0] < CACHE_S}
        if key not in self._cache:
            self._cache[key] = now_s, compute()
        return self._cache[key][1]

    def _throttled(self, compute: Callable[[], Any]) -> Any:
        """Compute one value at a time with pauses in between, so that any number of requests takes 1/3 of a core."""
        with self._lock:
            start_s = time.monotonic()
            value = compute()
            time.sleep(min(2 * (time.monotonic() - start_s), MAX_PAUSE_S))
            return value


class _LiveResponse(Response):
    """An endless response with a live stream as its body."""

    def __init__(self, streams: MjpegStreams, key: ViewKey) -> None:
        super().__init__()
        self._streams, self._key = streams, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._streams.send(self._key, scope, receive, send)
