"""Read a graph file and check it: everything that is not understood is rejected, with the values that are allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from stream_seg.config.document import (
    DEADLINE_MS,
    Document,
    MetricsConfig,
    SourcesConfig,
    StageKeys,
    TracesConfig,
    WatchdogConfig,
)
from stream_seg.errors import ConfigError, describe_exception
from stream_seg.redact import quote_value, redact_secrets
from stream_seg.schema.validation import describe_error, describe_unknown, validate
from stream_seg.schema.yaml import line_of, parse_yaml, read_yaml
from stream_seg.sources.uri import explain_refusal
from stream_seg.stages.base import Policy, Role, Stage, is_live, stream_of, traits_of
from stream_seg.stages.registry import STAGES, StageLoader, classes_of

NAME = r"[A-Za-z_][\w-]{0,63}"
NAME_ALLOWED = "a letter or _, then letters, digits, _ or -, 64 in all"
MAX_THREADS = 1000
"""Largest number of stages and links: each has a thread and a ZeroMQ socket, of which a context has 1023."""
TOP_LEVEL = tuple(key for key in Document.model_fields if key != "stages")
"""Keys of the top level other than the stages."""


@dataclass(frozen=True)
class Node:
    """One stage of a graph: its name, its kind (the `stage:` of the graph file), the names of its inputs, itself."""

    name: str
    kind: str
    inputs: tuple[str, ...]
    policy: Policy | None
    stage: Stage

    @property
    def role(self) -> Role:
        """Source, filter or output."""
        return traits_of(self.stage).role


@dataclass(frozen=True)
class Config:
    """A checked graph. Every node follows its inputs."""

    nodes: tuple[Node, ...]
    policy: Literal["auto", "latest", "every"]
    metrics: MetricsConfig | None
    deadline_ms: float = DEADLINE_MS
    traces: TracesConfig | None = None
    restrictions: SourcesConfig = field(default_factory=SourcesConfig)
    overwrite: bool = False
    """Outputs may replace files that exist."""
    watchdog: WatchdogConfig = field(default_factory=WatchdogConfig)

    @property
    def sources(self) -> list[Node]:
        """The nodes that are sources."""
        return [node for node in self.nodes if node.role == "source"]

    @property
    def outputs(self) -> list[Node]:
        """The nodes that are outputs."""
        return [node for node in self.nodes if node.role == "output"]

    @property
    def live(self) -> bool:
        """True if any source is live: its frames come whether or not they are taken."""
        return any(is_live(node.stage) for node in self.sources)

    @property
    def restricted(self) -> bool:
        """True if the graph file restricts the hosts that sources may reach."""
        return self.restrictions.hosts is not None

    def streams(self, name: str) -> list[str]:
        """Return the streams that reach a node; a source yields one."""
        return self._streams[name]

    @cached_property
    def _streams(self) -> dict[str, list[str]]:
        streams: dict[str, list[str]] = {}
        for node in self.nodes:
            incoming = dict.fromkeys(stream for name in node.inputs for stream in streams[name])
            streams[node.name] = list(incoming) if node.inputs else [stream_of(node.stage, node.name)]
        return streams


def read_document(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Its top level is checked, its stages are not yet."""
    document: dict[str, Any] = read_yaml(path)
    validate(Document, document, where=str(path))
    return document


def apply_settings(document: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """Return the document with each `STAGE.KEY=VALUE`, or top-level key (metrics.port=...), set; values are YAML."""
    changed: dict[str, Any] = deepcopy(dict(document))
    stages = changed.get("stages") or {}
    for setting in settings:
        key, equals, value = str(setting).partition("=")
        # A key with one of these is a URL, cut at a = of its password or query.
        if not equals or not key or set(key) & set(":@"):
            raise ConfigError(f"--set {redact_secrets(str(setting))}: expected KEY=VALUE, such as STAGE.KEY=0.6")
        parsed = parse_yaml(value, where=f"--set {key}")
        head, *rest = key.split(".")
        if head in stages:
            path = ["stages", head, *rest]
        elif head in TOP_LEVEL:
            path = [head, *rest]
        else:
            raise ConfigError(f"--set {key}: " + describe_unknown("stage", head, [*stages, *TOP_LEVEL]))
        if path == ["stages", head]:
            raise ConfigError(f"--set {key}: add a key of the stage, for example {head}.KEY=VALUE")
        target = changed
        for part in path[:-1]:
            if target.get(part) is None:
                target[part] = {}
            target = target[part]
            if not isinstance(target, dict):
                raise ConfigError(f"--set {key}: {part} has no keys of its own")
        target[path[-1]] = parsed
    return changed


def check(document: Mapping[str, Any], *, where: str, loader: StageLoader | None = None) -> Config:
    """Return a document as a Config. Raises ConfigError for the first fault, in a line that begins with `where`.

    `loader` imports the stages of a user's own; by default from paths relative to the working directory.
    """
    top = validate(Document, document, where=where)
    if not top.stages:
        raise ConfigError(f"{where}: no stages; available stages: {', '.join(STAGES)}")
    _check_number(top, where=where)
    loader = loader or StageLoader()
    nodes = {name: _node(name, dict(keys or {}), where=where, loader=loader) for name, keys in top.stages.items()}
    _check_unique_streams(nodes, where=where)
    for node in nodes.values():
        _check_access(node, top.sources, where=f"{where}: stages.{node.name}.uri")
    config = Config(
        _sort(nodes, where=where),
        top.policy,
        top.metrics,
        top.deadline_ms,
        top.traces,
        restrictions=top.sources,
        overwrite=top.overwrite,
        watchdog=top.watchdog,
    )
    _check_single_paths(config, where=where)
    _check_lost_labels(config, where=where)
    return config


def _node(name: str, keys: dict[str, Any], *, where: str, loader: StageLoader) -> Node:
    place = f"{where}: stages.{name}"
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"{where}: stages: {quote_value(name)} is no name for a stage: {NAME_ALLOWED}")
    kind = keys.pop("stage", name)
    try:
        stage_class = loader.load(kind)
    except ConfigError as error:
        line = line_of(Path(where), "stages", name)
        hint = "" if kind != name else " (a stage with another name needs its kind: `stage: KIND`)"
        raise ConfigError(f"{where}{f', line {line}' if line else ''}: stages.{name}: {error}{hint}") from error
    inputs = keys.pop("input", [])
    inputs = [inputs] if isinstance(inputs, str) else list(inputs) if isinstance(inputs, tuple) else inputs
    if not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs) or len(set(inputs)) != len(inputs):
        raise ConfigError(
            f"{place}.input: expected a stage's name or a list of different names, got {quote_value(inputs)}"
        )
    policy = keys.pop("policy", None)
    if policy not in (None, "latest", "every"):
        raise ConfigError(f"{place}.policy: expected latest or every, got {quote_value(policy)}")
    if bool(inputs) == (traits_of(stage_class).role == "source"):
        fault = "a source takes no input" if inputs else "needs an input: the name of a stage"
        raise ConfigError(f"{place}: {fault}")
    known = [key.name for key in fields(stage_class)]  # type: ignore[arg-type] # the loader accepts dataclasses only
    if "stream" in known:
        keys.setdefault("stream", name)
    try:
        stage = stage_class(**keys)
    except ValidationError as error:
        declared = stage_class.__pydantic_fields__  # type: ignore[attr-defined]
        everything = dict.fromkeys([*known, *StageKeys.model_fields])
        message = describe_error(error, declared, where=where, path=("stages", name), known=everything)
        raise ConfigError(message) from error
    except Exception as error:  # of a user's own stage
        raise ConfigError(f"{place}: {describe_exception(error)}") from error
    return Node(name, kind if isinstance(kind, str) else stage_class.__name__, tuple(inputs), policy, stage)


def _check_access(node: Node, restrictions: SourcesConfig, *, where: str) -> None:
    """Reject a source whose address the graph file does not allow."""
    try:
        source = node.stage.location() if hasattr(node.stage, "location") else None
        reason = explain_refusal(source, restrictions.schemes, restrictions.hosts) if source is not None else None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if reason:
        raise ConfigError(f"{where}: {reason}")


def _check_number(document: Document, *, where: str) -> None:
    """Reject a graph with more stages and links than a process can run, before any stage is made."""
    inputs = [(keys or {}).get("input") for keys in document.stages.values()]
    links = sum(len(names) if isinstance(names, list | tuple) else names is not None for names in inputs)
    if (threads := len(inputs) + links) > MAX_THREADS:
        raise ConfigError(
            f"{where}: stages: {len(inputs)} stages and {links} links are {threads} threads; the most is {MAX_THREADS}"
        )


def _check_unique_streams(nodes: Mapping[str, Node], *, where: str) -> None:
    """Reject two sources with one stream name: their frames would be averaged, and overwrite each other."""
    names: dict[str, str] = {}
    for node in nodes.values():
        if node.role != "source":
            continue
        stream = stream_of(node.stage, node.name)
        if names.setdefault(stream, node.name) != node.name:
            raise ConfigError(
                f"{where}: stages.{node.name}.stream: {quote_value(stream)} is the stream of {names[stream]} already"
            )


def _check_single_paths(config: Config, *, where: str) -> None:
    """Reject a stream that reaches a stage on two paths: frames with equal numbers would overwrite each other."""
    for node in config.nodes:
        paths: dict[str, list[str]] = {}
        for name in node.inputs:
            for stream in config.streams(name):
                paths.setdefault(stream, []).append(name)
        for stream, names in sorted(paths.items()):
            if len(names) > 1:
                raise ConfigError(
                    f"{where}: stages.{node.name}.input: the frames of stream {quote_value(stream)} come by "
                    f"{' and '.join(names)}; add a stage for each (`stage: {node.kind}`)"
                )


def _check_lost_labels(config: Config, *, where: str) -> None:
    """Reject a stage that would replace the labels of a stage before it."""
    labelled_by: dict[str, Node] = {}
    for node in config.nodes:
        traits = traits_of(node.stage)
        before = next((labelled_by[name] for name in node.inputs if name in labelled_by), None)
        if before is not None and traits.replaces_labels:
            raise ConfigError(
                f"{where}: stages.{node.name}.input: {before.name} has labelled these frames, and {node.name} would "
                f"replace its labels; take the frames from {' or '.join(before.inputs)}, or remove one of the two"
            )
        if "labels" in traits.produces:
            labelled_by[node.name] = node
        elif before is not None:
            labelled_by[node.name] = before


def _sort(nodes: Mapping[str, Node], *, where: str) -> tuple[Node, ...]:
    """Return the nodes in an order in which every node follows its inputs. Raises ConfigError for a wrong input."""
    for node in nodes.values():
        for name in node.inputs:
            _check_input(node, name, nodes, where=f"{where}: stages.{node.name}.input")
    try:
        order = list(TopologicalSorter({name: node.inputs for name, node in nodes.items()}).static_order())
    except CycleError as error:
        raise ConfigError(f"{where}: the stages form a circle: {' -> '.join(reversed(error.args[1]))}") from error
    used = {name for node in nodes.values() for name in node.inputs}
    unused = [node.name for node in nodes.values() if node.role != "output" and node.name not in used]
    if unused:
        outputs = ", ".join(name for name, _ in classes_of("output"))
        message = f"nothing takes the frames of {', '.join(unused)}"
        raise ConfigError(f"{where}: {message}; add an OUTPUT, or an output stage ({outputs})")
    inner = (nodes[name] for name in order if nodes[name].role != "output")
    return (*inner, *(node for node in nodes.values() if node.role == "output"))  # outputs as the file lists them


def _check_input(node: Node, name: str, nodes: Mapping[str, Node], *, where: str) -> None:
    if name not in nodes:
        raise ConfigError(f"{where}: {describe_unknown('stage', name, nodes)}")
    if nodes[name].role == "output":
        raise ConfigError(f"{where}: {name} is an output and passes no frames on")
    if traits_of(node.stage).images == "undrawn" and traits_of(nodes[name].stage).draws:
        raise ConfigError(
            f"{where}: {node.kind} draws the classes itself; "
            f"take the frames from {', '.join(nodes[name].inputs)}, before {name}"
        )
