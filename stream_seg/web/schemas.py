"""The JSON of the API, and its description as OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from stream_seg import __version__
from stream_seg.frame import State

Share = Annotated[float, Field(ge=0, le=1)]


class Source(BaseModel):
    """A stream that reaches the page."""

    id: str
    state: State
    reason: Annotated[str | None, Field(description="why it is not up")]
    card: Annotated[bool, Field(description="whether its frames are cards that say why there is no picture")]
    since_s: Annotated[float, Field(ge=0, description="seconds since its last picture")]
    seq: int
    width: int
    height: int
    fps: Annotated[float, Field(ge=0)]
    age_ms: Annotated[float | None, Field(description="from capture to the page, mean of two seconds; null without")]
    dropped: Annotated[int, Field(ge=0, description="frames that did not reach the page, since the start")]
    engine: Annotated[str | None, Field(description="network, backend, precision and device")]


class SourceClass(BaseModel):
    """A class of a stream's network."""

    name: str
    colour: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]
    share: Annotated[Share, Field(description="of the picture, in the newest frame")]


class SourceClasses(BaseModel):
    """The classes of a stream; none where nothing segments it."""

    id: str
    classes: list[SourceClass]


class Series(BaseModel):
    """A stream's last two minutes, one sample a second, equally long lists, the newest last."""

    id: str
    seconds_ago: list[float]
    fps: list[float]
    age_ms: list[float | None]
    dropped: Annotated[list[int], Field(description="frames lost in that second")]


class Drops(BaseModel):
    """Frames that a link of the graph dropped so far."""

    link: str
    reason: str
    frames: int


class Stats(BaseModel):
    """Figures of the page and of the pipeline behind it."""

    viewers: Annotated[int, Field(description="moving pictures being sent")]
    max_viewers: int
    login: Annotated[bool, Field(description="whether a token is needed")]
    series: list[Series]
    drops: list[Drops]


class ViewSettings(BaseModel):
    """How classes are drawn, for all viewers."""

    model_config = ConfigDict(extra="forbid")

    opacity: Share
    hidden: Annotated[list[str], Field(max_length=256, description="names of classes that are not drawn")]


class Problem(BaseModel):
    """What was wrong with a request."""

    error: str


MODELS = (Source, SourceClasses, Stats, ViewSettings, Problem)
SOURCE = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
VIEW = {
    "name": "view",
    "in": "query",
    "schema": {"type": "string", "enum": ["overlay", "original", "mask"], "default": "overlay"},
}
WIDTH = {"name": "width", "in": "query", "schema": {"type": "integer", "minimum": 16, "maximum": 4096}}


def openapi() -> dict[str, Any]:
    """The description of the API, OpenAPI 3.1."""
    _, schemas = models_json_schema(
        [(model, "serialization") for model in MODELS], ref_template="#/components/schemas/{model}"
    )
    view = _json("ViewSettings")
    return {
        "openapi": "3.1.0",
        "info": {"title": "stream_seg", "version": __version__, "description": "A running graph: see docs/page.md."},
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
        "paths": {
            "/api/sources": {"get": _operation("The streams and their state", _json("Source", many=True))},
            "/api/classes": {
                "get": _operation("The classes and their share of the picture", _json("SourceClasses", many=True))
            },
            "/api/stats": {"get": _operation("Figures of the last two minutes", _json("Stats"))},
            "/api/view": {
                "get": _operation("How classes are drawn", view),
                "put": _operation("Draw them otherwise, for all viewers", view, 400, 403, 422)
                | {"requestBody": {"required": True, "content": view}},
            },
            "/api/sources/{id}/stream.mjpg": {
                "get": _operation("The moving picture", _binary("multipart/x-mixed-replace"), 404, 422, 503)
                | {"parameters": [SOURCE, VIEW]}
            },
            "/api/sources/{id}/frame.jpg": {
                "get": _operation("The newest frame", _binary("image/jpeg"), 404, 422)
                | {"parameters": [SOURCE, VIEW, WIDTH]}
            },
            "/api/sources/{id}/snapshot.png": {
                "get": _operation("The newest frame at its full size, nothing lost", _binary("image/png"), 404, 422)
                | {"parameters": [SOURCE, VIEW]}
            },
            "/api/openapi.json": {"get": _operation("This description", {"application/json": {"schema": {}}})},
        },
    }


def _operation(summary: str, content: dict[str, Any], *problems: int) -> dict[str, Any]:
    answers = {"200": {"description": "done", "content": content}}
    refusals = {str(code): {"description": "refused", "content": _json("Problem")} for code in (*problems, 401, 429)}
    return {"summary": summary, "responses": answers | refusals}


def _json(model: str, *, many: bool = False) -> dict[str, Any]:
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{model}"}
    return {"application/json": {"schema": {"type": "array", "items": schema} if many else schema}}


def _binary(kind: str) -> dict[str, Any]:
    return {kind: {"schema": {"type": "string", "format": "binary"}}}
