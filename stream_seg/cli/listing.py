"""`stream-seg stages` and `stream-seg networks`: the stages with their keys, and the networks that have a name."""

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

from stream_seg.config.document import Document, StageKeys
from stream_seg.engines.cache_entry import summarize_report
from stream_seg.installation import find_file
from stream_seg.network.shipped import NETWORKS, SHIPPED
from stream_seg.schema.validation import describe_type, format_value
from stream_seg.stages.base import Stage
from stream_seg.zoo import BUILDERS


def describe_stages(stages: Mapping[str, type[Stage]], *, width: int | None = None) -> str:
    """Return every stage with its first docstring line and its keys: meaning, type and default of each.

    The keys that all stages share and those of the top level follow. Lines are wrapped at `width` columns, if given.
    """
    parts: list[tuple[str, type, Mapping[str, FieldInfo]]] = [
        *((name, stage, stage.__pydantic_fields__) for name, stage in stages.items()),  # type: ignore[attr-defined]
        ("every stage", StageKeys, _flatten(StageKeys)),
        ("top level", Document, _flatten(Document)),
    ]
    return "\n\n".join("\n".join(_describe_keys(*part, width)) for part in parts)


def list_networks() -> list[dict[str, Any]]:
    """Return the shipped networks: name, state, size [height, width], classes, files {name: bytes}, int8 (its accuracy
    report, or null), note."""
    networks = []
    for name, file in NETWORKS.items():
        sidecar = json.loads((SHIPPED / file).read_bytes())
        files = {path.name: path.stat().st_size for path in sorted(SHIPPED.glob(f"{Path(file).stem}*.onnx"))}
        keys = {"size": sidecar["size"], "classes": sidecar["classes"], "files": files}
        report = sidecar.get("int8", {}).get("report")
        networks.append({"name": name, "state": "shipped", **keys, "int8": report, "note": sidecar.get("note")})
    return networks


def networks_table(networks: list[dict[str, Any]]) -> Table:
    """Return the result of `list_networks` as a table."""
    table = Table("network", "weights", "input", "classes", "files", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for network in networks:
        height, width = network["size"]
        files = "\n".join(f"{name} {size / 1e6:.1f} MB" for name, size in network["files"].items())
        files += f"\n({summarize_report(network['int8'])})" if network["int8"] else ""
        table.add_row(network["name"], network["state"], f"{height}x{width}", ", ".join(network["classes"]), files)
    return table


def list_zoo() -> list[dict[str, Any]]:
    """Return the networks that can be trained: name, state (shipped; published: torchvision has weights; untrained),
    source, year, classes of the source, parameters with those, parameters_source, stride (pixels per score), idea,
    published {miou, data, where} or null, weights (their name or null)."""
    networks = []
    for name, entry in BUILDERS.items():
        state = "shipped" if name in NETWORKS else "published" if entry.weights else "untrained"
        keys = {key: value for key, value in vars(entry).items() if key not in ("builder", "keys")}
        networks.append({"name": name, "state": state, **keys, "published": entry.published and vars(entry.published)})
    return networks


def zoo_table(networks: list[dict[str, Any]]) -> Table:
    """Return the result of `list_zoo` as a table."""
    table = Table("trainable", "weights", "idea", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("year", "params", "stride"):
        table.add_column(heading, justify="right")
    for network in networks:
        millions = f"{network['parameters'] / 1e6:.1f} M"
        row = (network["name"], network["state"], network["idea"], str(network["year"]), millions)
        table.add_row(*row, str(network["stride"]))
    return table


def states_table() -> Table:
    """Return what to do with a network, by the state of its weights."""
    example = next(entry.weights for entry in BUILDERS.values() if entry.weights)
    table = Table("weights", "what to do", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_row("shipped", "stream-seg run INPUT OUTPUT --network NAME")
    recipes = f"recipes to start from: {find_file('configs/train')}/"
    table.add_row("untrained", f"stream-seg train RECIPE, which has network: NAME; {recipes}")
    table.add_row("", "or: stream-seg export NAME --weights FILE --size 352x480 --out NAME.onnx")
    table.add_row("", "then: stream-seg run INPUT OUTPUT --network NAME.onnx")
    table.add_row("published", f"as untrained; torchvision has weights: --weights {example}")
    return table


def _describe_keys(name: str, owner: type, fields: Mapping[str, FieldInfo], width: int | None) -> Iterator[str]:
    yield _wrap(f"{name}: {(inspect.getdoc(owner) or '').splitlines()[0]}", width, indent=2)
    for key, field in fields.items():
        default = f"default {format_value(field.get_default(call_default_factory=True))}"
        note = f"({describe_type(field)}; {'required' if field.is_required() else default})"
        yield _wrap(f"  {key + ':':<16} {field.description or ''} {note}", width, indent=19)


def _flatten(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a model, each followed by those of the model that it holds, if any, as "metrics.port"."""
    flat: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        flat[name] = field
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                flat |= {f"{name}.{key}": inner for key, inner in _flatten(part).items()}
    return flat


def _wrap(line: str, width: int | None, *, indent: int) -> str:
    if width is None:
        return line
    return textwrap.fill(line, max(width, 2 * indent), subsequent_indent=" " * indent, break_on_hyphens=False)
