"""The ASGI application: the page, its static files and its JSON API."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from functools import partial
from importlib import resources
from threading import Lock
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import gzip_accepted
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from stream_seg.schema.validation import describe_unknown
from stream_seg.web.auth import COOKIE, SESSION_S, TokenAuth, client_address, error_response
from stream_seg.web.exposition import choose_format
from stream_seg.web.health import answer_health
from stream_seg.web.mjpeg import MjpegStreams
from stream_seg.web.renderer import encode_jpeg, encode_png, render
from stream_seg.web.requests import handle_http_error, json_response, parse_view, parse_width, read_body, read_settings
from stream_seg.web.schemas import Drops, Stats, openapi
from stream_seg.web.state import PageState
from stream_seg.web.stream_state import StreamState

STATIC = resources.files("stream_seg.web") / "static"
FILES = ("page.css", "page.js", "charts.js", "login.js", "icon.svg")
MEDIA_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
DROPPED = "stream_seg_dropped_frames_total"
CACHE_S = 0.2
"""Metrics, statistics and frames are recomputed at most every CACHE_S, whatever the request rate."""
MAX_PAUSE_S = 0.3


class Page:
    """HTTP endpoints of the page. `streams` serves the live streams, `auth` the login."""

    def __init__(self, state: PageState, streams: MjpegStreams, auth: TokenAuth, registry: CollectorRegistry) -> None:
        self.state, self.streams, self.auth, self.registry = state, streams, auth, registry
        self.renderer = streams.renderer
        self._lock = Lock()
        self._cache: dict[str, tuple[float, Any]] = {}

    def app(self) -> Starlette:
        """Return the application with its routes."""
        routes = [
            Route("/", partial(self.file, name="index.html")),
            Route("/login", partial(self.file, name="login.html")),
            *(Route(f"/static/{name}", partial(self.file, name=name)) for name in FILES),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
            Route("/healthz", self.health),
            Route("/readyz", self.ready),
            Route("/metrics", self.metrics),
            Route("/api/openapi.json", self.openapi),
            Route("/api/sources", self.sources),
            Route("/api/classes", self.classes),
            Route("/api/stats", self.stats),
            Route("/api/view", self.view),
            Route("/api/view", self.change_view, methods=["PUT"]),
            Route("/api/sources/{id:path}/stream.mjpg", self.stream),
            Route("/api/sources/{id:path}/frame.jpg", self.frame),
            Route("/api/sources/{id:path}/snapshot.png", self.snapshot),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: handle_http_error})

    async def file(self, _: Request, *, name: str) -> Response:
        media_type = MEDIA_TYPES[name.rpartition(".")[2]]
        return Response((STATIC / name).read_bytes(), media_type=media_type, headers={"Cache-Control": "no-cache"})

    async def health(self, _: Request) -> Response:
        status, text = answer_health(self.state.stalls(), secret=self.auth.token is not None)
        return PlainTextResponse(text, status)

    async def ready(self, _: Request) -> Response:
        ready = self.state.is_ready()
        return PlainTextResponse("ready\n" if ready else "no source is up\n", 200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """Answer in the format and compression that the request accepts, as the metrics port does."""
        encode, content_type = choose_format(request.headers.get("accept", ""))
        headers = {"Content-Type": content_type}
        text = await self._compute(lambda: encode(self.registry), content_type)
        if gzip_accepted(request.headers.get("accept-encoding", "")):
            text = await self._compute(lambda: gzip.compress(text), f"gzip {content_type}")
            headers["Content-Encoding"] = "gzip"
        return Response(text, headers=headers)

    async def openapi(self, _: Request) -> Response:
        return json_response(openapi())

    async def sources(self, _: Request) -> Response:
        return json_response(await self._compute(self.state.list_sources, "sources"))

    async def classes(self, _: Request) -> Response:
        return json_response(await self._compute(self.state.list_classes, "classes"))

    async def stats(self, _: Request) -> Response:
        return json_response(await self._compute(self._collect_stats, "stats"))

    async def view(self, _: Request) -> Response:
        return json_response(self.state.settings)

    async def change_view(self, request: Request) -> Response:
        settings, names = await read_settings(request), self.state.list_class_names()
        for name in settings.hidden:
            if name not in names:
                raise HTTPException(422, f"hidden: {describe_unknown('class', name, names)}")
        self.state.settings = settings.model_copy(update={"hidden": sorted(set(settings.hidden))})
        return await self.view(request)

    async def stream(self, request: Request) -> ASGIApp:
        key = self._find_stream(request)[0], parse_view(request)
        if request.method == "HEAD":
            return Response(media_type="multipart/x-mixed-replace")
        if self.streams.viewers >= self.streams.max_viewers:
            message = f"viewer limit reached ({self.streams.max_viewers}); try again later"
            return error_response(503, message, {"Retry-After": "5"})
        return partial(self.streams.send, key)

    async def frame(self, request: Request) -> Response:
        name, stream = self._find_stream(request)
        view, width, renderer = parse_view(request), parse_width(request), self.renderer

        def draw() -> bytes:
            return encode_jpeg(render(stream.frame, view, self.state.settings, max_width=width), renderer.quality)

        return Response(await self._compute(draw, f"{view} {width} {name}"), media_type="image/jpeg")

    async def snapshot(self, request: Request) -> Response:
        name, stream = self._find_stream(request)
        view, settings, frame = parse_view(request), self.state.settings, stream.frame
        png = await self._compute(lambda: encode_png(render(frame, view, settings)))
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)
        headers = {"Content-Disposition": f'attachment; filename="{stem}_{frame.seq:06}_{view}.png"'}
        return Response(png, media_type="image/png", headers=headers)

    async def login(self, request: Request) -> Response:
        token = parse_qs((await read_body(request)).decode(errors="replace")).get("token", [""])[0]
        rejection = self.auth.reject(token, client_address(request.scope))
        if rejection is not None:
            return RedirectResponse(f"/login?error={rejection.status}", 303)
        response, session = RedirectResponse("/", 303), self.auth.create_session()
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        response.set_cookie(COOKIE, session, SESSION_S, httponly=True, samesite="strict", secure=secure)
        return response

    async def logout(self, _: Request) -> Response:
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE)
        return response

    def _collect_stats(self) -> Stats:
        samples = [sample for family in self.registry.collect() for sample in family.samples if sample.name == DROPPED]
        drops = [Drops(link=s.labels["link"], reason=s.labels["reason"], frames=int(s.value)) for s in samples]
        viewers, limit, login = self.streams.viewers, self.streams.max_viewers, self.auth.token is not None
        series = self.state.list_series()
        return Stats(viewers=viewers, max_viewers=limit, login=login, series=series, drops=drops)

    def _find_stream(self, request: Request) -> tuple[str, StreamState]:
        name, streams = request.path_params["id"], self.state.streams()
        if name not in streams:
            raise HTTPException(404, describe_unknown("source", name, streams) if streams else "no source has started")
        return name, streams[name]

    async def _compute(self, function: Callable[[], Any], key: str = "") -> Any:
        """Return the value of a function, called outside the event loop; one with a `key` is kept for CACHE_S."""
        return await run_in_threadpool(self._compute_throttled, function, key)

    def _compute_throttled(self, function: Callable[[], Any], key: str) -> Any:
        """Compute one value at a time with pauses in between, so that any number of requests takes 1/3 of a core."""
        with self._lock:
            start_s = time.monotonic()
            self._cache = {k: entry for k, entry in self._cache.items() if start_s - entry[0] < CACHE_S}
            if key in self._cache:
                return self._cache[key][1]
            value = function()
            if key:
                self._cache[key] = start_s, value
            time.sleep(min(2 * (time.monotonic() - start_s), MAX_PAUSE_S))
            return value
