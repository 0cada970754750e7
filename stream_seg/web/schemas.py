"""JSON schemas of the API, and its OpenAPI description."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from stream_seg.frame import SourceState

View = Literal["overlay", "original", "mask"]
Share = Annotated[float, Field(ge=0, le=1)]
WIDTHS = range(16, 4097)
"""Widths in pixels that a request for a frame may ask for."""


class Quality(BaseModel):
    """Current quality level of the segmentation, and its meaning."""

    level: Annotated[int, Field(ge=0, description="0 is full quality; target_ms raises it while frames are too old")]
    every: Annotated[int | Literal["auto"], Field(description="frames from one key frame to the next")]
    size: Annotated[tuple[int, int], Field(description="[height, width] of the network's input")]


class Source(BaseModel):
    """A stream and its state."""

    id: str
    state: Annotated[SourceState, Field(description="ended: a recording that is over")]
    reason: Annotated[str | None, Field(description="reason if it is not up")]
    placeholder: Annotated[bool, Field(description="true while frames are placeholders that show the state")]
    since_s: Annotated[float, Field(ge=0, description="seconds since the last image")]
    seq: int
    width: int
    height: int
    fps: Annotated[float, Field(ge=0)]
    age_ms: Annotated[float | None, Field(description="time from capture to the page, 2 s mean; null without images")]
    dropped: Annotated[int, Field(ge=0, description="frames lost before the page since the start")]
    engine: Annotated[str | None, Field(description="network, backend, precision and device")]
    quality: Annotated[Quality | None, Field(description="null unless every or target_ms is set")]


class SourceClass(BaseModel):
    """A class of a stream's network."""

    name: str
    colour: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
    share: Annotated[Share, Field(description="fraction of the newest frame's pixels")]


class SourceClasses(BaseModel):
    """The classes of a stream; empty if it is not segmented."""

    id: str
    classes: list[SourceClass]


class Series(BaseModel):
    """Statistics of a stream over the last two minutes: lists of equal length, one sample per second, newest last."""

    id: str
    seconds_ago: list[float]
    fps: list[float]
    age_ms: list[float | None]
    dropped: Annotated[list[int], Field(description="frames lost in that second")]


class Drops(BaseModel):
    """Frames dropped by a link of the graph since the start."""

    link: str
    reason: str
    frames: int


class Stats(BaseModel):
    """Statistics of the page and the pipeline."""

    viewers: Annotated[int, Field(description="live streams being sent")]
    max_viewers: int
    login: Annotated[bool, Field(description="true if a token is required")]
    series: list[Series]
    drops: list[Drops]


class ViewSettings(BaseModel):
    """Draw settings, shared by all viewers."""

    model_config = ConfigDict(extra="forbid")

    opacity: Share
    hidden: Annotated[list[str], Field(max_length=256, description="names of classes that are not drawn")]


class Error(BaseModel):
    """The answer to a rejected request: one line."""

    error: str


REF = "#/components/schemas/{model}"
MODELS = (Source, SourceClasses, Stats, ViewSettings, Error)
SOURCE = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
VIEW = {"name": "view", "in": "query", "schema": {"type": "string", "enum": get_args(View), "default": "overlay"}}
WIDTH = {"name": "width", "in": "query", "schema": {"type": "integer", "minimum": WIDTHS[0], "maximum": WIDTHS[-1]}}


def openapi() -> dict[str, Any]:
    """Return the description of the API as OpenAPI 3.1."""
    _, schemas = models_json_schema([(model, "serialization") for model in MODELS], ref_template=REF)
    view = _json("ViewSettings")
    put = _operation("Change the draw settings for all viewers", view, 400, 403, 422)
    put["requestBody"] = {"required": True, "content": view}
    return {
        "openapi": "3.1.0",
        "info": {"title": "stream_seg", "version": version("stream-seg"), "description": "See docs/page.md."},
        "components": {"schemas": schemas["$defs"], "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"token": []}],
        "paths": {
            "/api/sources": _get("Streams and their state", _json("Source", many=True)),
            "/api/classes": _get("Classes and their share of the newest frame", _json("SourceClasses", many=True)),
            "/api/stats": _get("Statistics of the last two minutes", _json("Stats")),
            "/api/view": _get("Draw settings", view) | {"put": put},
            "/api/sources/{id}/stream.mjpg": _image("Live stream", "multipart/x-mixed-replace", 503),
            "/api/sources/{id}/frame.jpg": _image("Newest frame", "image/jpeg", more=[WIDTH]),
            "/api/sources/{id}/snapshot.png": _image("Newest frame at full size, lossless", "image/png"),
            "/api/openapi.json": _get("This description", {"application/json": {"schema": {}}}),
        },
    }


def _operation(summary: str, content: dict[str, Any], *errors: int) -> dict[str, Any]:
    success = {"200": {"description": "success", "content": content}}
    rejections = {str(code): {"description": "rejected", "content": _json("Error")} for code in (*errors, 401, 429)}
    return {"summary": summary, "responses": success | rejections}


def _get(summary: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"get": _operation(summary, content)}


def _image(summary: str, media_type: str, *errors: int, more: Sequence[object] = ()) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"get": _operation(summary, content, 404, 422, *errors) | {"parameters": [SOURCE, VIEW, *more]}}


def _json(model: str, *, many: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": REF.format(model=model)}
    return {"application/json": {"schema": {"type": "array", "items": schema} if many else schema}}
