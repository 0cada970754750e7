"""Apply a changed graph file to a running graph: sources are added, removed and replaced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stream_seg.config.config import Config, Node
from stream_seg.errors import ConfigError
from stream_seg.runtime.graph import Graph


def reload(graph: Graph, old: Config, new: Config) -> Config:
    """Change the sources of a graph to those of `new`, and return `new`. A source that failed is started again.

    Raises ConfigError, before anything is changed, if anything but the sources differs, and OutputError if an output
    would replace a file with a new stream.
    """
    before, after = _sources(old), _sources(new)
    if not after:
        raise ConfigError("the changed graph has no source")
    if _without_sources(old) != _without_sources(new) or replace(old, nodes=()) != replace(new, nodes=()):
        raise ConfigError("only sources can be changed while the graph runs; restart for anything else")
    failed = [worker.node.name for worker in graph.workers if worker.failed]
    changed = [
        name
        for name in before
        if before[name] != after.get(name) or _receivers(old, name) != _receivers(new, name) or name in failed
    ]
    added = {name: _receivers(new, name) for name in after if name in changed or name not in before}
    for name, receivers in added.items():
        graph.refuse_existing(after[name], into=receivers)
    for worker in graph.workers:  # the only source may be replaced: its end must not be taken for the end of the run
        worker.receiver.keep_open = not worker.is_source
    try:
        if changed:
            graph.remove(*changed)
        for name, receivers in added.items():
            graph.add(after[name], into=receivers)
    finally:
        for worker in graph.workers:
            worker.receiver.keep_open = False
    return new


def reloader(graph: Graph, config: Config, read: Callable[[], Config]) -> Callable[[], None]:
    """Return a function that applies the graph file as it is now, at each call. It raises ConfigError."""
    current = config

    def apply() -> None:
        nonlocal current
        current = reload(graph, current, read())

    return apply


def _sources(config: Config) -> dict[str, Node]:
    return {node.name: node for node in config.sources}


def _receivers(config: Config, name: str) -> list[str]:
    return [node.name for node in config.nodes if name in node.inputs]


def _without_sources(config: Config) -> dict[str, Node]:
    """Return every other node by name, without the sources among its inputs."""
    sources = _sources(config)
    others = [node for node in config.nodes if node.name not in sources]
    return {node.name: replace(node, inputs=tuple(i for i in node.inputs if i not in sources)) for node in others}
