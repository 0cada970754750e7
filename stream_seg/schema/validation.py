"""Validate user input with pydantic and report the first error in one line: `WHERE: key: expected ..., got ...`."""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, GetCoreSchemaHandler, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

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
        def check(value: str) -> str:
            if value not in self.names():
                raise PydanticCustomError("literal_error", "expected one of the known names")
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))


def validate(model: type[Model], value: object, *, where: str) -> Model:
    """Return `value`, a mapping or a JSON text in bytes, as `model`. Raise ConfigError with the first error."""
    try:
        return model.model_validate_json(value) if isinstance(value, bytes) else model.model_validate(value)
    except ValidationError as error:
        raise ConfigError(describe_error(error, model.model_fields, where=where)) from error


def validate_field(field: FieldInfo, value: object, *, name: str) -> None:
    """Raise ConfigError unless the type of a field takes `value`; the error begins with `name`."""
    declared: Any = Annotated[(field.annotation, *field.metadata, Field(alias=name))]
    model = create_model("Value", value=(declared, ...))
    try:
        model.model_validate({name: value})
    except ValidationError as error:
        raise ConfigError(describe_error(error, {name: field}, where="")) from error


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
    detail = next((one for one in errors if one["type"] in UNKNOWN), None)
    if detail is None:
        # A union yields one error for each of its members; the member that was meant accepted the value the furthest.
        same_key = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]
        detail = max(same_key, key=lambda one: (len(one["loc"]), not one["type"].endswith("_type")))
    kind, loc = detail["type"], detail["loc"]
    is_short = kind in MISSING and isinstance(loc[-1], int)  # a list that lacks an item
    keys, declared, siblings = _locate(loc[:-1] if is_short else loc, fields)
    if kind in UNKNOWN:
        fault = describe_unknown("key", loc[-1], (known or fields) if len(keys) == 1 else siblings)
        keys.pop()
    elif kind in MISSING and not is_short:
        fault = "is required"
    elif isinstance(cause := detail.get("ctx", {}).get("error"), Exception):
        fault = " ".join(str(cause).split())
    elif kind == "json_invalid":
        fault = detail["msg"].replace("Invalid", "invalid")
    else:
        expected = re.sub(r"^\w+ should (be|have|match) ", "expected ", detail["msg"])
        if not keys:
            expected = _expected_mapping(known or fields)
        elif declared is not None and (is_short or re.search(MISFIT, kind)):
            expected = f"expected {describe_type(declared)}"
        fault = f"{expected}, got {quote_value(detail['input'])}"
    return ": ".join(part for part in (where, ".".join((*path, *keys)), fault) if part)


def describe_unknown(what: str, name: object, known: Collection[str]) -> str:
    """Return the error for an unknown `name`: the most similar known name, and all known ones."""
    names = [redact_secrets(one) for one in known]
    hint = "".join(f", did you mean {one}?" for one in difflib.get_close_matches(str(name), names, n=1))
    return f"unknown {what} {quote_value(name)}{hint} (known: {', '.join(names)})"


def describe_type(declared: FieldInfo | Any) -> str:
    """Return the type of a field in words, as `whole number >= 1 and <= 1000 or auto`; None is left out."""
    kind, metadata = _split(declared)
    names = next((item.names() for item in metadata if isinstance(item, OneOf)), ())
    if names:
        return " or ".join(names)
    keys = (*LIMITS, "min_length", "max_length")
    limits = {key: getattr(item, key) for item in metadata for key in keys if getattr(item, key, None) is not None}
    bounds = " and ".join(f"{LIMITS[key]} {value}" for key, value in limits.items() if key in LIMITS)
    return f"{_describe_kind(kind, limits)} {bounds}".rstrip()


def format_value(value: Any) -> str:
    """Return a value as YAML spells it."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return str(value.model_dump(exclude_defaults=True) if isinstance(value, BaseModel) else value)


def _expected_mapping(fields: Collection[str]) -> str:
    return f"expected a mapping with the keys {', '.join(fields)}"


def _locate(
    loc: Sequence[int | str], fields: Mapping[str, FieldInfo]
) -> tuple[list[str], FieldInfo | Any, Mapping[str, FieldInfo]]:
    """Follow pydantic's path through the declared types; drop the names of union members, which no user typed.

    Return the keys, the type declared there, None if it is unknown, and the fields beside the last key.
    """
    keys: list[str] = []
    kinds: list[Any] = [fields]
    declared, siblings = None, fields
    is_member = False
    for index, part in enumerate(loc):
        if part == "[key]":  # the error is about the key before it
            continue
        if is_member:
            is_member = False
            continue
        is_key = loc[index + 1 : index + 2] == ("[key]",)
        siblings = next((kind for kind in kinds if isinstance(kind, Mapping)), {})
        declared = next((inner for kind in kinds if (inner := _inner(kind, part, is_key=is_key)) is not None), None)
        members = [_split(member)[0] for member in _members(_split(declared)[0])]
        kinds = [member.model_fields if _is_model(member) else member for member in members]
        is_member = len(kinds) > 1
        keys.append(redact_secrets(str(part)))
    return keys, declared, siblings


def _inner(kind: Any, part: int | str, *, is_key: bool) -> FieldInfo | Any | None:
    """Return the type declared for one key or index of fields or a container type, None where it is unknown."""
    if isinstance(kind, Mapping):
        return kind.get(str(part))
    arguments = get_args(kind)
    if get_origin(kind) is dict:
        return arguments[0 if is_key else 1]
    if get_origin(kind) is tuple and isinstance(part, int):
        return arguments[0] if arguments[-1] is Ellipsis else arguments[min(part, len(arguments) - 1)]
    return None


def _split(declared: FieldInfo | Any) -> tuple[Any, list[Any]]:
    """Return the type of a field or of an annotation, and its metadata."""
    if isinstance(declared, FieldInfo):
        return declared.annotation, declared.metadata
    if get_origin(declared) is Annotated:
        kind, *metadata = get_args(declared)
        return kind, [item for info in metadata for item in getattr(info, "metadata", [info])]
    return declared, []


def _members(kind: Any) -> list[Any]:
    """Return the members of a union other than None; the type itself where it is no union."""
    parts = get_args(kind) if get_origin(kind) in UNIONS else (kind,)
    return [part for part in parts if part is not type(None)]


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _describe_kind(kind: Any, limits: Mapping[str, Any]) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is tuple:
        least, most = limits.get("min_length"), limits.get("max_length")
        if arguments[-1] is not Ellipsis:
            count = str(len(arguments))
        elif least == most:
            count = "" if least is None else str(least)
        elif most is None:
            count = f"at least {least}"
        else:
            count = f"at most {most}" if least is None else f"{least} to {most}"
        return f"list of {count}, each a {describe_type(arguments[0])}" if count else "list"
    if origin is dict and arguments[1] is not Any:
        return f"mapping, each to a {describe_type(arguments[1])}"
    if origin is Literal:
        return " or ".join(format_value(value) for value in arguments)
    if origin in UNIONS:
        return " or ".join(describe_type(member) for member in _members(kind))
    kind = dict if _is_model(kind) else origin or kind
    return TYPE_NAMES.get(kind, getattr(kind, "__name__", str(kind)).lower())
