"""JSON schemas of the API, and its OpenAPI description."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from stream_seg.frame import State

Share = Annotated[float, Field(ge=0, le=1)]


class Source(BaseModel):
    """A stream and its state."""

    id: str
    state: State
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


MODELS = (Source, SourceClasses, Stats, ViewSettings, Error)
SOURCE = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
VIEW = {
    "name": "view",
    "in": "query",
    "schema": {"type": "string", "enum": ["overlay", "original", "mask"], "default": "overlay"},
}
WIDTH = {"name": "width", "in": "query", "schema": {"type": "integer", "minimum": 16, "maximum": 4096}}


def openapi() -> dict[str, Any]:
    """Return the description of the API as OpenAPI 3.1."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    view = _json("ViewSettings")
    return {
        "openapi": "3.1.0",
        "info": {"title": "stream_seg", "version": version("stream-seg"), "description": "See docs/page.md."},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/api/sources": {"get": _operation("Streams and their state", _json("Source", many=True))},
            "/api/classes": {
                "get": _operation("Classes and their share of the newest frame", _json("SourceClasses", many=True))
            },
            "/api/stats": {"get": _operation("Statistics of the last two minutes", _json("Stats"))},
            "/api/view": {
                "get": _operation("Draw settings", view),
                "put": _operation("Change the draw settings for all viewers", view, 400, 403, 422)
                | {"requestBody": {"required": True, "content": view}},
            },
            "/api/sources/{id}/stream.mjpg": {
                "get": _operation("Live stream", _binary("multipart/x-mixed-replace"), 404, 422, 503)
                | {"parameters": [SOURCE, VIEW]}
            },
            "/api/sources/{id}/frame.jpg": {
                "get": _operation("Newest frame", _binary("image/jpeg"), 404, 422)
                | {"parameters": [SOURCE, VIEW, WIDTH]}
            },
            "/api/sources/{id}/snapshot.png": {
                "get": _operation("Newest frame at full size, lossless", _binary("image/png"), 404, 422)
                | {"parameters": [SOURCE, VIEW]}
            },
            "/api/openapi.json": {"get": _operation("This description", {"application/json": {"schema": {}}})},
        },
    }


def _operation(summary: str, content: dict[str, Any], *errors: int) -> dict[str, Any]:
    success = {"200": {"description": "success", "content": content}}
    rejections = {str(code): {"description": "rejected", "content": _json("Error")} for code in (*errors, 401, 429)}
    return {"summary": summary, "responses": success | rejections}


def _json(model: str, *, many: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{model}"}
    return {"application/json": {"schema": {"type": "array", "items": schema} if many else schema}}


def _binary(media_type: str) -> dict[str, Any]:
    return {media_type: {"schema": {"type": "string", "format": "binary"}}}
