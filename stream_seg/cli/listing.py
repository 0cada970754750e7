"""What a graph file may say: the stages and their keys, taken from the stages themselves; the networks with a name."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table

from stream_seg.config.graph_file import Document, Shared
from stream_seg.engines.cache_entry import in_few_words
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.schema.validation import describe_type, format_value
from stream_seg.stages.base import Stage
from stream_seg.zoo import BUILDERS
from stream_seg.zoo.literature import IDEAS, PUBLISHED


def as_text(kinds: Mapping[str, type[Stage]], *, width: int | None = None) -> str:
    """Every kind of stage: its one line, then a line for each key with its type, default and meaning; the same for the
    keys that all share, and for those beside the stages. Lines are broken at `width` columns, if given."""
    parts: list[tuple[str, type, Mapping[str, FieldInfo]]] = [
        *((kind, stage, stage.__pydantic_fields__) for kind, stage in kinds.items()),  # type: ignore[attr-defined]
        ("every stage", Shared, _flat(Shared)),
        ("top level", Document, _flat(Document)),
    ]
    return "\n\n".join("\n".join(_keys(*part, width)) for part in parts)


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


def _keys(name: str, described: type, fields: Mapping[str, FieldInfo], width: int | None) -> Iterator[str]:
    yield _wrapped(f"{name}: {(inspect.getdoc(described) or '').splitlines()[0]}", width, indent=2)
    for name, field in fields.items():
        line = f"  {name + ':':<16} {field.description or ''} ({describe_type(field)}; {_default(field)})"
        yield _wrapped(line, width, indent=19)


def _flat(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model, and behind one that is a mapping with keys of its own those, as metrics.port."""
    flat: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        flat[name] = field
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                flat |= {f"{name}.{key}": inner for key, inner in _flat(part).items()}
    return flat


def _wrapped(line: str, width: int | None, *, indent: int) -> str:
    if width is None:
        return line
    return textwrap.fill(line, max(width, 2 * indent), subsequent_indent=" " * indent, break_on_hyphens=False)


def _default(field: FieldInfo) -> str:
    return (
        "required" if field.is_required() else f"default {format_value(field.get_default(call_default_factory=True))}"
    )
