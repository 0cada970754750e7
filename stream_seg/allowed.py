"""What a key of a stage, or of the top level of a graph file, may hold: in words, for a list of keys and for errors."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
UNIONS = (Union, types.UnionType)


def in_words(field: FieldInfo) -> str:
    """As `whole number >= 1 and <= 1000 or auto`. That None is allowed is not said: it is the default then."""
    return _limited(field.annotation, field.metadata)


def of_several_kinds(field: FieldInfo) -> bool:
    """Whether it may hold values of different kinds, such as a number or a word."""
    return len(_kinds(field.annotation)) > 1


def keys_at(fields: Mapping[str, FieldInfo], loc: Sequence[int | str]) -> tuple[Mapping[str, FieldInfo], int]:
    """The keys among which a path of pydantic's ends, and how many of its parts lead to them."""
    for depth, part in enumerate(loc[:-1]):
        kinds = _kinds(fields[part].annotation) if isinstance(part, str) and part in fields else []
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if model is None:
            return fields, depth
        fields = model.model_fields
    return fields, len(loc) - 1


def as_yaml(value: Any) -> str:
    """A value as a graph file has it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else value)


def _limited(annotation: Any, metadata: Sequence[Any]) -> str:
    limits = [f"{LIMITS[key]} {value}" for item in metadata for key, value in _bounds(item)]
    return " ".join([_type(annotation), " and ".join(limits)]).rstrip()


def _bounds(item: Any) -> Iterator[tuple[str, Any]]:
    for key in LIMITS:
        if (value := getattr(item, key, None)) is not None:
            yield key, value


def _kinds(annotation: Any) -> list[Any]:
    parts = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    return [part for part in parts if part is not type(None)]


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        kind, *said = get_args(annotation)
        return _limited(kind, [item for info in said for item in getattr(info, "metadata", ())])
    if origin is tuple:
        parts = get_args(annotation)
        if parts[-1] is Ellipsis:
            return "list"
        return f"list of {len(parts)}, each a {_type(parts[0])}"
    if origin is dict and (value := get_args(annotation)[1]) is not Any:
        return f"mapping, each to a {_type(value)}"
    if origin is Literal:
        return " or ".join(as_yaml(value) for value in get_args(annotation))
    if origin in UNIONS:
        return " or ".join(_type(part) for part in _kinds(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    names: dict[Any, str] = {str: "text", float: "number", int: "whole number", bool: "true or false", dict: "mapping"}
    return names.get(origin or annotation, getattr(annotation, "__name__", str(annotation)).lower())
