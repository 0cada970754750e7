"""What pydantic complains of, in this project's words: where, what is wrong, and what is allowed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from stream_seg.allowed import in_words, keys_at, of_several_kinds
from stream_seg.discreet import quoted, without_secrets

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
