"""Validate user input with pydantic and report the first error in one line: `WHERE: key: expected ..., got ...`."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, PydanticCustomError, core_schema

from stream_seg.errors import ConfigError
from stream_seg.redact import quote_value, redact_secrets

Model = TypeVar("Model", bound=BaseModel)

UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")
MISFIT = "_type$|_parsing$|_from_float$|^literal_error$|^(greater|less)_than|^too_(short|long)$"
"""pydantic's error types for a value that contradicts the declared type of its key: the type says what is expected."""
LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
UNIONS = (Union, types.UnionType)
TYPE_NAMES = {str: "text", float: "number", int: "whole number", bool: "true or false", dict: "mapping"}


class OneOf:
    """Annotation of a text field whose values are known only at run time, such as the names of a registry.

    `names` is called at every validation, and to describe the field.
    """

    def __init__(self, names: Callable[[], Sequence[str]]) -> None:
        self.names = names

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: str) -> str:
        if value not in self.names():
            raise PydanticCustomError("literal_error", "expected one of the known names")
        return value


def validate(model: type[Model], value: object, *, where: str) -> Model:
    """Return `value`, a mapping or a JSON text in bytes, as `model`. Raise ConfigError with the first error."""
    try:
        return model.model_validate_json(value) if isinstance(value, bytes) else model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(describe_error(error, model.model_fields, where=where)) from error


def require_mapping(value: Any, fields: Collection[str], *, where: str) -> dict[str, Any]:
    """Return `value`. Raise ConfigError unless it is a mapping; `fields` are the keys it may have."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: {_expected_mapping(fields)}, got {quote_value(value)}")
    return value


def describe_error(
    error: ValidationError,
    fields: Mapping[str, FieldInfo],
    *,
    where: str,
    path: Sequence[str] = (),
    known: Collection[str] = (),
) -> str:
    """Return the first error of a model with `fields` in one line that begins with `where`, a file or an address.

    `path` is the path of keys to the model inside `where`; `known` lists its keys, where there are more than `fields`.
    A misspelt key is reported before a missing one, of which it is the cause.
    """
    errors = error.errors(include_url=False)
    detail = next((one for one in errors if one["type"] in UNKNOWN), errors[0])
    if detail["type"] not in UNKNOWN:
        # A union yields one error for each of its members; the member that was meant accepted the value the furthest.
        same_key = [one for one in errors if one["loc"][:1] == detail["loc"][:1]]
        detail = max(same_key, key=lambda one: (len(one["loc"]), not one["type"].endswith("_type")))
    place = _locate(detail["loc"][:-1] if _lacks_item(detail) else detail["loc"], fields)
    fault = _describe_fault(detail, place, known or fields)
    keys = place.path[:-1] if detail["type"] in UNKNOWN else place.path
    return ": ".join(part for part in (where, ".".join((*path, *keys)), fault) if part)


def describe_unknown(what: str, name: object, known: Collection[str]) -> str:
    """Return the error for an unknown `name`: the most similar known name, and all known ones."""
    names = [redact_secrets(one) for one in known]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"unknown {what} {quote_value(name)}{hint} (known: {', '.join(names)})"


def describe_type(field: FieldInfo) -> str:
    """Return the type of a field in words, as `whole number >= 1 and <= 1000 or auto`; None is left out."""
    return _describe(field.annotation, field.metadata)


def format_value(value: Any) -> str:
    """Return a value as YAML spells it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else value)


class _Place(NamedTuple):
    """A place in a document: its keys, the type declared there, and the keys allowed beside its last key."""

    path: tuple[str, ...]
    type: FieldInfo | Any | None
    siblings: Mapping[str, FieldInfo] | None


def _locate(loc: Sequence[int | str], fields: Mapping[str, FieldInfo]) -> _Place:
    """Follow pydantic's path through the declared types; drop the names of union members, which no user typed."""
    path: list[str] = []
    kinds: list[Any] = [fields]
    declared: Any = None
    siblings: Mapping[str, FieldInfo] | None = fields
    in_member = True
    for index, part in enumerate(loc):
        if part == "[key]":  # the error is about the key before it
            continue
        if len(kinds) > 1 and not in_member:
            in_member = True
            continue
        is_key = loc[index + 1 : index + 2] == ("[key]",)
        siblings = next(filter(None, map(_fields_of, kinds)), None)
        declared = next((inner for kind in kinds if (inner := _inner(kind, part, is_key=is_key)) is not None), None)
        kinds = [_bare(kind) for kind in _kinds(declared.annotation if isinstance(declared, FieldInfo) else declared)]
        in_member = False
        path.append(redact_secrets(str(part)))
    return _Place(tuple(path), declared, siblings)


def _fields_of(kind: Any) -> Mapping[str, FieldInfo] | None:
    if isinstance(kind, Mapping):
        return kind
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _inner(kind: Any, part: int | str, *, is_key: bool) -> FieldInfo | Any | None:
    """Return the type declared for one key or index of a container type, None where it is unknown."""
    fields = _fields_of(kind)
    if fields is not None:
        return fields.get(str(part))
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[0 if is_key else 1]
    if get_origin(kind) is tuple and isinstance(part, int):
        return arguments[0] if arguments[-1] is Ellipsis else arguments[min(part, len(arguments) - 1)]
    return None


def _describe_fault(detail: ErrorDetails, place: _Place, known: Collection[str]) -> str:
    if detail["type"] in UNKNOWN:
        return describe_unknown("key", detail["loc"][-1], known if len(place.path) == 1 else place.siblings or ())
    if detail["type"] in MISSING and not _lacks_item(detail):
        return "is required"
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, Exception):
        return str(cause)
    if detail["type"] == "json_invalid":
        return detail["msg"].replace("Invalid", "invalid")
    got = f"got {quote_value(detail['input'])}"
    if not place.path:
        return f"{_expected_mapping(known)}, {got}"
    if place.type is not None and (_lacks_item(detail) or re.search(MISFIT, detail["type"])):
        declared = place.type
        return f"expected {describe_type(declared) if isinstance(declared, FieldInfo) else _describe(declared)}, {got}"
    return re.sub(r"^\w+ should (be|have|match) ", "expected ", detail["msg"]) + f", {got}"


def _expected_mapping(fields: Collection[str]) -> str:
    return f"expected a mapping with the keys {', '.join(fields)}"


def _lacks_item(detail: ErrorDetails) -> bool:
    """Return True for a list that is too short, which pydantic reports as a missing item."""
    return detail["type"] in MISSING and isinstance(detail["loc"][-1], int)


def _describe(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    names = next((item.names() for item in metadata if isinstance(item, OneOf)), ())
    if names:
        return " or ".join(names)
    limits = [f"{LIMITS[key]} {value}" for key, value in _constraints(metadata, tuple(LIMITS))]
    lengths = dict(_constraints(metadata, ("min_length", "max_length")))
    return " ".join([_describe_kind(annotation, lengths), " and ".join(limits)]).rstrip()


def _constraints(metadata: Sequence[Any], keys: Sequence[str]) -> Iterator[tuple[str, Any]]:
    for item in metadata:
        for key in keys:
            if (value := getattr(item, key, None)) is not None:
                yield key, value


def _bare(annotation: Any) -> Any:
    """Return a type without its annotations."""
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _kinds(annotation: Any) -> list[Any]:
    """Return the members of a union other than None; the type itself where it is no union."""
    annotation = _bare(annotation)
    parts = get_args(annotation) if get_origin(annotation) in UNIONS else (annotation,)
    return [part for part in parts if part is not type(None)]


def _describe_kind(annotation: Any, lengths: Mapping[str, int]) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        kind, *metadata = arguments
        return _describe(kind, [item for info in metadata for item in getattr(info, "metadata", ())])
    if origin is tuple:
        count = str(len(arguments)) if arguments[-1] is not Ellipsis else _describe_count(lengths)
        return f"list of {count}, each a {_describe(arguments[0])}" if count else "list"
    if origin is dict and arguments[1] is not Any:
        return f"mapping, each to a {_describe(arguments[1])}"
    if origin is Literal:
        return " or ".join(format_value(value) for value in arguments)
    if origin in UNIONS:
        return " or ".join(_describe(part) for part in _kinds(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    kind = origin or annotation
    return TYPE_NAMES.get(kind, getattr(kind, "__name__", str(kind)).lower())


def _describe_count(lengths: Mapping[str, int]) -> str:
    least, most = lengths.get("min_length"), lengths.get("max_length")
    if least == most:
        return "" if least is None else str(least)
    if most is None:
        return f"at least {least}"
    return f"at most {most}" if least is None else f"{least} to {most}"
