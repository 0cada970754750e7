"""A changed graph file taken over by a running graph: sources come and go, everything else stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from stream_seg.config.graph_file import Config, Node
from stream_seg.errors import ConfigError
from stream_seg.runtime.graph import Graph
from stream_seg.stages.registry import SOURCES


def reload(graph: Graph, old: Config, new: Config) -> Config:
    """Add, remove and replace sources until the graph is as `new` says, which is the value; one that failed is begun
    again. Raises ConfigError, before anything is changed, where anything but the sources differs."""
    before, after = _sources(old), _sources(new)
    if not after:
        raise ConfigError("the changed graph has no source")
    if _rest(old) != _rest(new) or replace(old, nodes=()) != replace(new, nodes=()):
        raise ConfigError("only sources can be changed while it runs; for anything else start it again")
    failed = [task.node.name for task in graph.tasks if task.failed]
    changed = [
        name
        for name in before
        if before[name] != after.get(name) or _into(old, name) != _into(new, name) or name in failed
    ]
    for task in graph.tasks:  # the only source may be replaced: nobody is to take that for the end
        task.receiver.kept = not task.is_source
    try:
        if changed:
            graph.remove(*changed)
        for name, node in after.items():
            if name in changed or name not in before:
                graph.add(node, into=_into(new, name))
    finally:
        for task in graph.tasks:
            task.receiver.kept = False
    return new


def reloader(graph: Graph, config: Config, again: Callable[[], Config]) -> Callable[[], None]:
    """Takes the graph file over as it is now, each time that it is called. Raises ConfigError."""
    current = config

    def take_over() -> None:
        nonlocal current
        current = reload(graph, current, again())

    return take_over


def _sources(config: Config) -> dict[str, Node]:
    return {node.name: node for node in config.nodes if node.kind in SOURCES}


def _into(config: Config, name: str) -> list[str]:
    return [node.name for node in config.nodes if name in node.inputs]


def _rest(config: Config) -> dict[str, Node]:
    """Everything but the sources, and what takes from which source."""
    sources = _sources(config)
    others = [node for node in config.nodes if node.name not in sources]
    return {node.name: replace(node, inputs=tuple(i for i in node.inputs if i not in sources)) for node in others}
