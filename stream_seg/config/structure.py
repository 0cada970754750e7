"""Checks of the links between the stages of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter

from stream_seg.config.config import Config, Node
from stream_seg.errors import ConfigError
from stream_seg.redact import quote_value
from stream_seg.schema.validation import describe_unknown
from stream_seg.stages.base import stream_of, traits_of
from stream_seg.stages.registry import classes_of


def reject_shared_streams(nodes: Mapping[str, Node], *, where: str) -> None:
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


def reject_double_paths(config: Config, *, where: str) -> None:
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


def reject_lost_labels(config: Config, *, where: str) -> None:
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


def sort_nodes(nodes: Mapping[str, Node], *, where: str) -> tuple[Node, ...]:
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
