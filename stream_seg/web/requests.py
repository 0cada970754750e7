"""What a request says, checked; and answers as JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast, get_args

from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from stream_seg.web.auth import refused
from stream_seg.web.renderer import View
from stream_seg.web.schemas import ViewSettings

BODY_BYTES, BODY_S = 65536, 5.0
"""A request's body at most, and the time it may take."""
WIDTHS = range(16, 4097)


async def body(request: Request) -> bytes:
    """The body. HTTPException 413 or 408 where it is too long or comes too slowly."""
    text = b""

    async def read() -> None:
        nonlocal text
        async for chunk in request.stream():
            text += chunk
            if len(text) > BODY_BYTES:
                raise HTTPException(413, f"the body has more than {BODY_BYTES} bytes")

    try:
        await asyncio.wait_for(read(), BODY_S)
    except (asyncio.TimeoutError, ClientDisconnect) as error:
        raise HTTPException(408, "the body did not come") from error
    return text


async def settings_asked(request: Request) -> ViewSettings:
    """The body as settings. A type other than JSON's is what a form of another site could send."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(400, "the body must be application/json")
    try:
        return ViewSettings.model_validate_json(await body(request))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise HTTPException(422, f"{place}: {first['msg']}" if place else first["msg"]) from error


def view_asked(request: Request) -> View:
    """The parameter `view`."""
    view = request.query_params.get("view", "overlay")
    if view not in get_args(View):
        raise HTTPException(422, f"view: {view[:40]!r} is not one of {', '.join(get_args(View))}")
    return cast(View, view)


def width_asked(request: Request) -> int | None:
    """The parameter `width`, pixels at most; None for the picture's own."""
    text = request.query_params.get("width")
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) in WIDTHS):
        raise HTTPException(422, f"width: {text[:40]!r} is no whole number from {WIDTHS[0]} to {WIDTHS[-1]}")
    return int(text)


def said(answer: BaseModel | Sequence[BaseModel]) -> Response:
    """Models as JSON."""
    if isinstance(answer, BaseModel):
        return JSONResponse(answer.model_dump())
    return JSONResponse([model.model_dump() for model in answer])


def problem(_: Request, error: Exception) -> Response:
    """An HTTPException as the API says it."""
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "it failed")
    return refused(status, detail)
