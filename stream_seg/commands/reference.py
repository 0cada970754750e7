"""What a graph file may say: the stages and their keys, taken from the stages themselves; the networks with a name."""

from __future__ import annotations

import inspect
import json
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from rich.table import Table

from stream_seg.backends.entry import in_few_words
from stream_seg.stage import Stage
from stream_seg.zoo import BUILDERS, NETWORKS, SHIPPED
from stream_seg.zoo.literature import IDEAS, PUBLISHED

LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def as_text(kinds: Mapping[str, type[Stage]], *, width: int | None = None) -> str:
    """Every kind of stage: its one line, then a line for each key with its type, default and meaning. Lines are broken
    at `width` columns, if given."""
    return "\n\n".join("\n".join(_stage(kind, stage, width)) for kind, stage in kinds.items())


def networks_listed() -> list[dict[str, Any]]:
    """What the side-car of every named network says, and its files: name, size [height, width], classes, files {name:
    bytes}, int8 (the accuracy gate's report, or null), note."""
    return [_network(name, SHIPPED / sidecar) for name, sidecar in NETWORKS.items()]


def networks_table(listed: list[dict[str, Any]]) -> Table:
    """The same for a terminal."""
    table = Table("network", "input", "classes", "files", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for network in listed:
        height, width = network["size"]
        files = "\n".join(f"{name} {size / 1e6:.1f} MB" for name, size in network["files"].items())
        files += f"\n({in_few_words(network['int8'])})" if network["int8"] else ""
        table.add_row(network["name"], f"{height}x{width}", ", ".join(network["classes"]), files)
    return table


def zoo_listed() -> list[dict[str, Any]]:
    """Every network that can be built and trained: name, source, year, classes of the source, parameters with those,
    parameters_source, stride (pixels to a score), idea, published {miou, data, where} or null."""
    hidden = ("builder", "keys")
    return [
        {
            "name": name,
            **{key: value for key, value in vars(entry).items() if key not in hidden},
            "idea": IDEAS[name],
            "published": vars(PUBLISHED[name]) if name in PUBLISHED else None,
        }
        for name, entry in BUILDERS.items()
    ]


def zoo_table(listed: list[dict[str, Any]]) -> Table:
    """The same for a terminal."""
    table = Table("to be trained", "idea", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for heading in ("year", "parameters", "stride"):
        table.add_column(heading, justify="right")
    for network in listed:
        millions = f"{network['parameters'] / 1e6:.1f} M"
        table.add_row(network["name"], network["idea"], str(network["year"]), millions, str(network["stride"]))
    return table


def _network(name: str, sidecar: Path) -> dict[str, Any]:
    said = json.loads(sidecar.read_bytes())
    files = {file.name: file.stat().st_size for file in sorted(sidecar.parent.glob(f"{sidecar.stem}*.onnx"))}
    report = said.get("int8", {}).get("report")
    told = {key: said[key] for key in ("size", "classes")}
    return {"name": name, **told, "files": files, "int8": report, "note": said.get("note")}


def _stage(kind: str, stage: type[Stage], width: int | None) -> Iterator[str]:
    yield _wrapped(f"{kind}: {(inspect.getdoc(stage) or '').splitlines()[0]}", width, indent=2)
    fields: dict[str, FieldInfo] = stage.__pydantic_fields__  # type: ignore[attr-defined]
    for name, field in fields.items():
        line = f"  {name + ':':<16} {field.description or ''} ({_allowed(field)}; {_default(field)})"
        yield _wrapped(line, width, indent=19)


def _wrapped(line: str, width: int | None, *, indent: int) -> str:
    if width is None:
        return line
    return textwrap.fill(line, max(width, 2 * indent), subsequent_indent=" " * indent, break_on_hyphens=False)


def _default(field: FieldInfo) -> str:
    if field.default is not PydanticUndefined:
        return f"default {_yaml(field.default)}"
    return "default {}" if field.default_factory is not None else "required"


def _allowed(field: FieldInfo) -> str:
    return _limited(field.annotation, field.metadata)


def _limited(annotation: Any, metadata: Sequence[Any]) -> str:
    limits = [f"{LIMITS[key]} {value}" for item in metadata for key, value in _bounds(item)]
    return " ".join([_type(annotation), " and ".join(limits)]).rstrip()


def _bounds(item: Any) -> Iterator[tuple[str, Any]]:
    for key in LIMITS:
        if (value := getattr(item, key, None)) is not None:
            yield key, value


def _type(annotation: Any) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        kind, *said = get_args(annotation)
        return _limited(kind, [item for info in said for item in getattr(info, "metadata", ())])
    if origin is tuple:
        parts = get_args(annotation)
        return f"list of {len(parts)}, each a {_type(parts[0])}"
    if origin is dict and (value := get_args(annotation)[1]) is not Any:
        return f"mapping, each to a {_type(value)}"
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
