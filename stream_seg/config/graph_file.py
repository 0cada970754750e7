"""A graph as its YAML says it, checked: what is not understood is refused with what is allowed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from stream_seg.errors import ConfigError
from stream_seg.redact import quoted, without_secrets
from stream_seg.schema.validation import first, unknown
from stream_seg.schema.yaml import parse_yaml, read_yaml
from stream_seg.sources.uri import POLICY_SCHEMES, parse, refusal
from stream_seg.stages.base import Policy, Stage
from stream_seg.stages.capture import Capture
from stream_seg.stages.registry import SINKS, SOURCES, STAGES

NAME = r"[A-Za-z_][\w-]{0,63}"
DEADLINE_MS = 200.0
"""A frame that is older when an output has dealt with it counts as late."""
NAME_ALLOWED = "a letter or _, then letters, digits, _ or -, 64 in all"


class MetricsConfig(BaseModel):
    """Where Prometheus finds the metrics."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: Annotated[int, Field(ge=0, le=65535, description="TCP port; 0 takes a free one")]
    host: Annotated[str, Field(description="address to bind")] = "127.0.0.1"


class TracesConfig(BaseModel):
    """Where the traces of frames go: to an OpenTelemetry collector, or into a file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: Annotated[str | None, Field(description="OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces")] = None
    file: Annotated[Path | None, Field(description="a span per line as JSON, appended")] = None
    sample: Annotated[float, Field(ge=0, le=1, description="share of the frames; late ones are always traced")] = 0.01

    @field_validator("endpoint")
    @classmethod
    def _web_address(cls, given: str | None) -> str | None:
        if given is not None and not _is_web_address(given):
            raise ValueError(f"expected http:// or https:// and a host, got {quoted(given)}")
        return given

    @model_validator(mode="after")
    def _one_place(self) -> TracesConfig:
        if (self.endpoint is None) == (self.file is None):
            raise ValueError("expected endpoint or file, one of both")
        return self


class SourcesConfig(BaseModel):
    """What sources may be opened; a key that is left out allows whatever the graph names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schemes: Annotated[tuple[str, ...] | None, Field(description="of rtsp, rtsps, http, https, file, camera")] = None
    hosts: Annotated[tuple[str, ...] | None, Field(description="names, addresses or networks such as 10.1.0.0/16")] = (
        None
    )

    @field_validator("schemes")
    @classmethod
    def _known_schemes(cls, given: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for scheme in given or ():
            if scheme not in POLICY_SCHEMES:
                raise ValueError(unknown("scheme", scheme, POLICY_SCHEMES))
        return given


class Shared(BaseModel):
    """What a stage of any kind may say, beside the keys of its kind.

    Their names and meanings only: `_node` checks what is given, for its errors say more.
    """

    input: Annotated[
        str | list[str] | None, Field(description="the stage that frames come from, or several; a source has none")
    ] = None
    policy: Annotated[
        Policy | None, Field(description="how frames come: latest (live) or every; without it, as the graph has it")
    ] = None
    stage: Annotated[str | None, Field(description="its kind; without it, the name is the kind")] = None


class Document(BaseModel):
    """The top level of a graph file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stages: Annotated[dict[str, dict[str, Any] | None], Field(description="the keys of each stage, by its name")]
    policy: Annotated[
        Literal["auto", "latest", "every"],
        Field(description="how frames come to the stages; auto: latest where a source is live, else every"),
    ] = "auto"
    metrics: Annotated[MetricsConfig | None, Field(description="serve Prometheus metrics")] = None
    traces: Annotated[TracesConfig | None, Field(description="give traces of frames, to endpoint or file")] = None
    sources: Annotated[SourcesConfig, Field(description="what may be opened; what is left out allows all")] = (
        SourcesConfig()
    )
    deadline_ms: Annotated[
        float, Field(gt=0, allow_inf_nan=False, description="a frame that reaches an output older than this is late")
    ] = DEADLINE_MS


ELSEWHERE = tuple(key for key in Document.model_fields if key != "stages")
"""The keys of the top level that are no stage."""


@dataclass(frozen=True)
class Node:
    """One stage of the graph: its name, its kind (a key of STAGES), the names that it takes frames from, itself."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    policy: Policy | None
    stage: Stage


@dataclass(frozen=True)
class Config:
    """A checked graph: nodes in an order in which every node follows its inputs."""

    nodes: tuple[Node, ...]
    policy: Literal["auto", "latest", "every"]
    metrics: MetricsConfig | None
    deadline_ms: float = DEADLINE_MS
    traces: TracesConfig | None = None


def read_document(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; its form is checked, its stages are not yet."""
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected keys at the top level: {', '.join(Document.model_fields)}")
    _top(document, where=str(path))
    return document


def with_settings(document: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The document with `STAGE.KEY=VALUE`, or a key of the top level (metrics.port=...), put in; values are YAML."""
    changed: dict[str, Any] = deepcopy(dict(document))
    stages = changed.get("stages") or {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        # A key with one of these is an address, cut where its password or query has a =.
        if not equals or not key or set(key) & set(":@"):
            raise ConfigError(f"--set {without_secrets(setting)}: expected KEY=VALUE, for example smooth.weight=0.6")
        parsed = parse_yaml(value, where=f"--set {key}")
        head, *rest = key.split(".")
        if head in stages:
            path = ["stages", head, *rest]
        elif head in ELSEWHERE:
            path = [head, *rest]
        else:
            raise ConfigError(f"--set {key}: " + unknown("stage", head, [*stages, *ELSEWHERE]))
        if path == ["stages", head]:
            raise ConfigError(f"--set {key}: name a key of the stage, for example {head}.KEY=VALUE")
        place = changed
        for part in path[:-1]:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
            if not isinstance(place, dict):
                raise ConfigError(f"--set {key}: {part} has no keys of its own")
        place[path[-1]] = parsed
    return changed


def check(document: Mapping[str, Any], *, where: str) -> Config:
    """A document as a Config. Raises ConfigError at the first thing that is not understood."""
    top = _top(document, where=where)
    if not top.stages:
        raise ConfigError(f"{where}: no stages; the kinds are {', '.join(STAGES)}")
    nodes = {name: _node(name, dict(keys or {}), where=where) for name, keys in top.stages.items()}
    _refuse_equal_streams(nodes, where=where)
    for node in nodes.values():
        if isinstance(node.stage, Capture):
            try:
                said = refusal(parse(node.stage.uri), top.sources.schemes, top.sources.hosts)
            except ConfigError as error:
                raise ConfigError(f"{where}: stages.{node.name}.uri: {error}") from None
            if said:
                raise ConfigError(f"{where}: stages.{node.name}.uri: {said}")
    ordered = _ordered(nodes, where=where)
    _refuse_doubled_streams(ordered, where=where)
    return Config(ordered, top.policy, top.metrics, top.deadline_ms, top.traces)


def _top(document: Mapping[str, Any], *, where: str) -> Document:
    try:
        return Document.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            f"{where}{first(error, Document.model_fields, fields=Document.model_fields, separator=': ')}"
        ) from error


def _node(name: str, keys: dict[str, Any], *, where: str) -> Node:
    place = f"{where}: stages.{name}"
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{where}: stages: {quoted(name)} is no name for a stage: {NAME_ALLOWED}")
    kind = keys.pop("stage", name)
    if not isinstance(kind, str) or kind not in STAGES:
        hint = "" if kind != name else " (a stage of another name says its kind: `stage: capture`)"
        raise ConfigError(f"{place}: {unknown('stage', kind, STAGES)}{hint}")
    inputs = keys.pop("input", [])
    inputs = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs) or len(set(inputs)) != len(inputs):
        raise ConfigError(f"{place}.input: expected a stage's name or a list of different names, got {quoted(inputs)}")
    policy = keys.pop("policy", None)
    if policy not in (None, "latest", "every"):
        raise ConfigError(f"{place}.policy: expected latest or every, got {quoted(policy)}")
    if bool(inputs) == (kind in SOURCES):
        raise ConfigError(
            f"{place}: " + ("a source takes no input" if inputs else "needs an input: the name of a stage")
        )
    fields = [field.name for field in dataclasses.fields(STAGES[kind])]  # type: ignore[arg-type]
    if "stream" in fields:
        keys.setdefault("stream", name)
    allowed = dict.fromkeys([*fields, *Shared.model_fields])
    try:
        stage = STAGES[kind](**keys)
    except ValidationError as error:
        known: dict[str, FieldInfo] = STAGES[kind].__pydantic_fields__  # type: ignore[attr-defined]
        raise ConfigError(f"{place}{first(error, allowed, fields=known, separator='.')}") from error
    return Node(name, kind, tuple(inputs), policy, stage)


def _refuse_equal_streams(nodes: Mapping[str, Node], *, where: str) -> None:
    """Frames of two sources under one name would be averaged with each other, and written over each other."""
    seen: dict[str, str] = {}
    for node in nodes.values():
        stream = getattr(node.stage, "stream", None) if node.kind in SOURCES else None
        if stream is not None and stream in seen:
            raise ConfigError(
                f"{where}: stages.{node.name}.stream: {quoted(stream)} is the stream of {seen[stream]} already"
            )
        if stream is not None:
            seen[stream] = node.name


def _refuse_doubled_streams(ordered: Sequence[Node], *, where: str) -> None:
    """Frames of one stream that come by two ways have the same numbers: the later would be written over the earlier."""
    streams: dict[str, set[str]] = {}
    for node in ordered:
        ways: dict[str, list[str]] = {}
        for name in node.inputs:
            for stream in streams[name]:
                ways.setdefault(stream, []).append(name)
        for stream, names in sorted(ways.items()):
            if len(names) > 1:
                raise ConfigError(
                    f"{where}: stages.{node.name}.input: the frames of stream {quoted(stream)} come by "
                    f"{' and '.join(names)}; give each a stage of its own (`stage: {node.kind}`)"
                )
        streams[node.name] = set(ways) if node.inputs else {getattr(node.stage, "stream", node.name)}


def _ordered(nodes: Mapping[str, Node], *, where: str) -> tuple[Node, ...]:
    for node in nodes.values():
        for name in node.inputs:
            if name not in nodes:
                raise ConfigError(f"{where}: stages.{node.name}.input: {unknown('stage', name, nodes)}")
            if nodes[name].kind in SINKS:
                raise ConfigError(f"{where}: stages.{node.name}.input: {name} is an output and passes nothing on")
    try:
        order = list(TopologicalSorter({name: node.inputs for name, node in nodes.items()}).static_order())
    except CycleError as error:
        raise ConfigError(f"{where}: the stages form a circle: {' -> '.join(reversed(error.args[1]))}") from error
    for node in nodes.values():
        drawn = [name for name in node.inputs if node.kind == "serve" and nodes[name].kind == "overlay"]
        if drawn:
            raise ConfigError(
                f"{where}: stages.{node.name}.input: the page draws the classes itself; "
                f"take the frames from {', '.join(nodes[drawn[0]].inputs)}, before {drawn[0]}"
            )
    taken = {name for node in nodes.values() for name in node.inputs}
    idle = [node.name for node in nodes.values() if node.kind not in SINKS and node.name not in taken]
    if idle:
        raise ConfigError(f"{where}: nothing takes the frames of {', '.join(idle)}; add an output ({', '.join(SINKS)})")
    return tuple(nodes[name] for name in order)


def _is_web_address(text: str) -> bool:
    """Whether it is http:// or https:// with a host, and with a port that there can be, or none."""
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https") and bool(re.fullmatch(r"\S+", parts.hostname or "")) and parts.port != 0
        )
    except ValueError:
        return False
