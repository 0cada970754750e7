"""What a graph file may say, taken from the stages themselves."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stream_seg.stage import Stage

LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def as_text(kinds: Mapping[str, type[Stage]]) -> str:
    """Every kind of stage: its one line, then a line for each key with its type, default and meaning."""
    return "\n\n".join("\n".join(_stage(kind, stage)) for kind, stage in kinds.items())


def _stage(kind: str, stage: type[Stage]) -> Iterator[str]:
    yield f"{kind}: {(inspect.getdoc(stage) or '').splitlines()[0]}"
    fields: dict[str, FieldInfo] = stage.__pydantic_fields__  # type: ignore[attr-defined]
    for name, field in fields.items():
        yield f"  {name + ':':<16} {field.description or ''} ({_allowed(field)}; {_default(field)})"


def _default(field: FieldInfo) -> str:
    if field.default is not PydanticUndefined:
        return f"default {_yaml(field.default)}"
    return "default {}" if field.default_factory is not None else "required"


def _allowed(field: FieldInfo) -> str:
    limits = [f"{LIMITS[key]} {value}" for item in field.metadata for key, value in _bounds(item)]
    return " ".join([_type(field.annotation), *limits])


def _bounds(item: Any) -> Iterator[tuple[str, Any]]:
    for key in LIMITS:
        if (value := getattr(item, key, None)) is not None:
            yield key, value


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(_yaml(value) for value in get_args(annotation))
    if origin in (Union, types.UnionType):
        return " or ".join(_type(part) for part in get_args(annotation) if part is not type(None))
    names: dict[Any, str] = {str: "text", float: "number", int: "whole number", bool: "true or false", dict: "mapping"}
    return names.get(origin or annotation, getattr(annotation, "__name__", str(annotation)).lower())


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value)
