"""Read a graph file and check it: everything that is not understood is rejected, with the values that are allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from stream_seg.config.config import Config, Node
from stream_seg.config.document import (
    Document,
    SourcesConfig,
    StageKeys,
)
from stream_seg.config.structure import reject_double_paths, reject_lost_labels, reject_shared_streams, sort_nodes
from stream_seg.errors import ConfigError, describe_exception
from stream_seg.redact import quote_value, redact_secrets
from stream_seg.schema.validation import describe_error, describe_unknown, validate
from stream_seg.schema.yaml import line_of, parse_yaml, read_yaml
from stream_seg.sources.uri import explain_refusal
from stream_seg.stages.base import traits_of
from stream_seg.stages.registry import STAGES, StageLoader

NAME = r"[A-Za-z_][\w-]{0,63}"
NAME_ALLOWED = "a letter or _, then letters, digits, _ or -, 64 in all"
MAX_THREADS = 1000
"""Largest number of stages and links: each has a thread and a ZeroMQ socket, of which a context has 1023."""
TOP_LEVEL = tuple(key for key in Document.model_fields if key != "stages")
"""Keys of the top level other than the stages."""


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
    reject_shared_streams(nodes, where=where)
    for node in nodes.values():
        _check_access(node, top.sources, where=f"{where}: stages.{node.name}.uri")
    config = Config(
        sort_nodes(nodes, where=where),
        top.policy,
        top.metrics,
        top.deadline_ms,
        top.traces,
        restrictions=top.sources,
        overwrite=top.overwrite,
        watchdog=top.watchdog,
    )
    reject_double_paths(config, where=where)
    reject_lost_labels(config, where=where)
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
