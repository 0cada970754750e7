"""The application: the page, its files, its API."""

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

from stream_seg.web import views as facts
from stream_seg.web.auth import COOKIE, SESSION_S, TokenAuth, refused, wrong_token
from stream_seg.web.mjpeg import Feeds
from stream_seg.web.renderer import Darkroom, Settings, View, drawn, jpeg, png
from stream_seg.web.requests import body, problem, said, settings_asked, view_asked, width_asked
from stream_seg.web.schemas import ViewSettings, openapi
from stream_seg.web.state import Board, Stream

STATIC = resources.files("stream_seg.web") / "static"
FILES = {
    "page.css": "text/css",
    "page.js": "text/javascript",
    "charts.js": "text/javascript",
    "login.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
FRESH_S = 0.2
"""Scrapes and figures are at most so old: a flood of them costs no more than five a second."""


LONGEST_PAUSE_S = 0.3


class Page:
    """Every answer. `feeds` has the viewers, `door` the token."""

    def __init__(self, board: Board, feeds: Feeds, door: TokenAuth, registry: CollectorRegistry) -> None:
        self.board, self.feeds, self.door, self.registry = board, feeds, door, registry
        self._drawing = Lock()
        self._kept: dict[str, tuple[float, Any]] = {}

    @property
    def darkroom(self) -> Darkroom:
        """Where pictures are drawn, and the settings that they follow."""
        return self.feeds.darkroom

    def app(self) -> Starlette:
        """The routes."""
        get: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "/": partial(self.file, name="index.html", kind="text/html"),
            "/login": partial(self.file, name="login.html", kind="text/html"),
            "/healthz": self.health,
            "/readyz": self.ready,
            "/metrics": self.metrics,
            "/api/openapi.json": self.description,
            "/api/sources": self.sources,
            "/api/classes": self.classes,
            "/api/stats": self.stats,
            "/api/view": self.view,
            "/api/sources/{id:path}/stream.mjpg": self.stream,
            "/api/sources/{id:path}/frame.jpg": self.frame,
            "/api/sources/{id:path}/snapshot.png": self.snapshot,
        }
        routes = [Route(path, answer) for path, answer in get.items()]
        routes += [Route(f"/static/{name}", partial(self.file, name=name, kind=kind)) for name, kind in FILES.items()]
        routes += [
            Route("/api/view", self.change_view, methods=["PUT"]),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: problem})

    async def file(self, _: Request, *, name: str, kind: str) -> Response:
        return Response((STATIC / name).read_bytes(), media_type=kind, headers={"Cache-Control": "no-cache"})

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(self, _: Request) -> Response:
        ready = self.board.ready()
        return PlainTextResponse("ready\n" if ready else "no source is up\n", 200 if ready else 503)

    async def metrics(self, _: Request) -> Response:
        text = await self._fresh("metrics", lambda: generate_latest(self.registry))
        return Response(text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def description(self, _: Request) -> Response:
        return JSONResponse(openapi())

    async def sources(self, _: Request) -> Response:
        return said(await self._fresh("sources", lambda: facts.sources(self.board)))

    async def classes(self, _: Request) -> Response:
        return said(await self._fresh("classes", lambda: facts.classes(self.board)))

    async def stats(self, _: Request) -> Response:
        stats = await self._fresh("stats", lambda: facts.stats(self.board, self.registry))
        own = {"viewers": self.feeds.viewers, "max_viewers": self.feeds.limit, "login": self.door.token is not None}
        return said(stats.model_copy(update=own))

    async def view(self, _: Request) -> Response:
        settings = self.darkroom.settings
        return said(ViewSettings(opacity=settings.opacity, hidden=sorted(settings.hidden)))

    async def change_view(self, request: Request) -> Response:
        asked = await settings_asked(request)
        known = facts.class_names(self.board)
        unknown = [name for name in asked.hidden if name not in known]
        if unknown:
            raise HTTPException(422, f"hidden: unknown class {unknown[0]!r}; the classes are {', '.join(known)}")
        self.darkroom.settings = Settings(asked.opacity, frozenset(asked.hidden))
        return await self.view(request)

    async def stream(self, request: Request) -> Response:
        watched = self._named(request)[0], view_asked(request)
        if request.method == "HEAD":
            return Response(media_type="multipart/x-mixed-replace")
        if self.feeds.full:
            message = f"{self.feeds.limit} moving pictures are being sent already; more are not"
            return refused(503, message, {"Retry-After": "5"})
        return _Streaming(self.feeds, watched)

    async def frame(self, request: Request) -> Response:
        name, stream = self._named(request)
        view, width, settings = view_asked(request), width_asked(request), self.darkroom.settings
        quality = self.darkroom.quality.jpeg
        picture = await self._fresh(
            f"{view} {width} {name}",
            lambda: jpeg(drawn(stream.frame, view, settings, max_width=width), quality),
        )
        return Response(picture, media_type="image/jpeg")

    async def snapshot(self, request: Request) -> Response:
        name, stream = self._named(request)
        view, settings, frame = view_asked(request), self.darkroom.settings, stream.frame
        picture = await run_in_threadpool(self._alone, lambda: png(drawn(frame, view, settings)))
        file = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in name)
        return Response(
            picture,
            media_type="image/png",
            headers={"Content-Disposition": f'attachment; filename="{file}_{frame.seq:06}_{view}.png"'},
        )

    async def login(self, request: Request) -> Response:
        token = parse_qs((await body(request)).decode(errors="replace")).get("token", [""])[0]
        refusal = wrong_token(self.door, token, request.scope)
        if refusal is not None:
            return RedirectResponse("/login?again=1" if refusal.status_code == 401 else "/login?later=1", 303)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        answer.set_cookie(
            COOKIE, self.door.create_session(), SESSION_S, httponly=True, samesite="strict", secure=secure
        )
        return answer

    async def logout(self, _: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    def _named(self, request: Request) -> tuple[str, Stream]:
        name, streams = request.path_params["id"], self.board.streams()
        if name not in streams:
            raise HTTPException(404, f"no source {name!r}; the sources are {', '.join(streams) or 'not there yet'}")
        return name, streams[name]

    async def _fresh(self, key: str, make: Callable[[], Any]) -> Any:
        """What was made less than FRESH_S ago, or is made now, outside of the server's loop."""
        return await run_in_threadpool(self._alone, partial(self._remembered, key, make))

    def _remembered(self, key: str, make: Callable[[], Any]) -> Any:
        now = time.monotonic()
        self._kept = {k: kept for k, kept in self._kept.items() if now - kept[0] < FRESH_S}
        if key not in self._kept:
            self._kept[key] = now, make()
        return self._kept[key][1]

    def _alone(self, make: Callable[[], Any]) -> Any:
        with self._drawing:  # one at a time and with pauses: many requests take a third of a core, not every one
            began = time.monotonic()
            made = make()
            time.sleep(min(2 * (time.monotonic() - began), LONGEST_PAUSE_S))
            return made


class _Streaming(Response):
    """A moving picture instead of a body."""

    def __init__(self, feeds: Feeds, watched: tuple[str, View]) -> None:
        super().__init__()
        self._feeds, self._watched = feeds, watched

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._feeds.send(self._watched, scope, receive, send)
