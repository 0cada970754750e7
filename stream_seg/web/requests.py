"""Parse and validate requests; encode answers as JSON."""

from __future__ import annotations

import asyncio
from typing import cast, get_args

from pydantic_core import to_jsonable_python
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from stream_seg.errors import ConfigError
from stream_seg.schema.validation import validate
from stream_seg.web.auth import error_response
from stream_seg.web.schemas import WIDTHS, View, ViewSettings

MAX_BODY_BYTES, BODY_TIMEOUT_S = 65536, 5.0


async def read_body(request: Request) -> bytes:
    """Return the body. Raise HTTPException 413 beyond MAX_BODY_BYTES, 408 after BODY_TIMEOUT_S."""

    async def read() -> bytes:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body exceeds {MAX_BODY_BYTES} bytes")
        return body

    try:
        return await asyncio.wait_for(read(), BODY_TIMEOUT_S)
    except (asyncio.TimeoutError, ClientDisconnect) as error:
        raise HTTPException(408, "the body is incomplete") from error


async def read_settings(request: Request) -> ViewSettings:
    """Return the body as settings. Only JSON is accepted: a form of another site could send the other types."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(400, "the body must be application/json")
    try:
        return validate(ViewSettings, await read_body(request), where="")
    except ConfigError as error:
        raise HTTPException(422, str(error)) from error


def parse_view(request: Request) -> View:
    """Return the query parameter `view`."""
    view = request.query_params.get("view", "overlay")
    if view not in get_args(View):
        raise HTTPException(422, f"view: expected {', '.join(get_args(View))}, got {view[:40]!r}")
    return cast(View, view)


def parse_width(request: Request) -> int | None:
    """Return the query parameter `width`, the largest width in pixels; None for the frame's own width."""
    text = request.query_params.get("width")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) in WIDTHS):
        raise HTTPException(422, f"width: expected whole number from {WIDTHS[0]} to {WIDTHS[-1]}, got {text[:40]!r}")
    return int(text)


def json_response(content: object) -> Response:
    """Return one or several models as JSON."""
    return JSONResponse(to_jsonable_python(content))


def handle_http_error(_: Request, error: Exception) -> Response:
    """Return an HTTPException in the API's format."""
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail)
