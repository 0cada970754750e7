"""What pydantic complains of, in this project's words: where, what is wrong, and what is allowed."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stream_seg.redact import quoted, without_secrets

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
"""What pydantic calls a key that there is none of."""
MISFIT = "_type$|_parsing$|_from_float$|^(greater|less)_than|^too_(short|long)$|^missing$"
"""What it calls a value of another kind, size or length than what the key may hold."""


def unknown(what: str, name: object, known: Sequence[str] | Mapping[str, object]) -> str:
    """A name that there is none of, the one that was probably meant, and those that there are."""
    listed = [without_secrets(one) for one in known]
    close = difflib.get_close_matches(str(name), listed, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"unknown {what} {quoted(name)}{hint} (known: {', '.join(listed)})"


def first(
    error: ValidationError,
    allowed: Sequence[str] | Mapping[str, object],
    *,
    fields: Mapping[str, FieldInfo],
    separator: str,
) -> str:
    """The first complaint of pydantic in this project's words; a misspelt key, which is a missing one too, first."""
    errors = error.errors()
    detail: ErrorDetails = next((one for one in errors if one["type"] in UNKNOWN), errors[0])
    loc = detail["loc"]
    field = fields.get(str(loc[0])) if len(loc) > 1 else None
    if field is not None and of_several_kinds(field):
        # One complaint for each kind, which is named behind the key; one from inside the value has a longer path.
        detail = max((one for one in errors if one["loc"][:1] == loc[:1]), key=lambda one: len(one["loc"]))
        loc = (loc[0], *detail["loc"][2:])
        if len(loc) == 1:
            return f"{separator}{loc[0]}: expected {in_words(field)}, got {quoted(detail['input'])}"
    keys, depth = keys_at(fields, loc)
    if detail["type"] in UNKNOWN:
        inside = _path(loc[:-1])
        return f"{separator if inside else ''}{inside}: {unknown('key', loc[-1], keys if depth else allowed)}"
    path = _path(loc)
    if detail["type"] in ("missing", "missing_argument") and depth == len(loc) - 1:
        return f"{separator}{path}: is required"
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Exception):
        return f"{separator}{path}: {cause}" if path else f": {cause}"
    meant = keys.get(str(loc[depth])) if loc and all(isinstance(part, int) for part in loc[depth + 1 :]) else None
    if meant is not None and re.search(MISFIT, detail["type"]):
        return f"{separator}{_path(loc[: depth + 1])}: expected {in_words(meant)}, got {quoted(detail['input'])}"
    message = detail["msg"].replace("Input should be", "expected").replace("Value error, ", "")
    message = message.replace("a valid dictionary", "a mapping")  # which is what YAML calls it
    return f"{separator}{path}: {message[0].lower()}{message[1:]}, got {quoted(detail['input'])}"


def _path(loc: Sequence[int | str]) -> str:
    return ".".join(without_secrets(str(part)) for part in loc if part != "[key]")


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
