"""Command-line arguments applied to a graph: INPUT replaces its source, every OUTPUT adds an output stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from typing import Any

from stream_seg.config.config import Config
from stream_seg.config.draft import Draft
from stream_seg.errors import ConfigError
from stream_seg.redact import redact_secrets
from stream_seg.schema.yaml import parse_yaml
from stream_seg.stages.base import Role, expected_frames, parse_argument, traits_of
from stream_seg.stages.registry import StageLoader, classes_of


def default_document() -> dict[str, Any]:
    """Return the graph that runs without --config."""
    text = resources.files("stream_seg").joinpath("shipped/default.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = parse_yaml(text, where="default.yaml")
    return document


def with_input(document: Mapping[str, Any], uri: str, loader: StageLoader | None = None) -> dict[str, Any]:
    """Return the document with its one source reading `uri`. Raises ConfigError for no source or several."""
    graph = Draft(document, loader or StageLoader())
    sources = graph.names("source")
    kind, keys = match_argument("source", uri)
    if len(sources) != 1:
        count = f"the sources {', '.join(map(redact_secrets, sources))}" if sources else "no source"
        raise ConfigError(f"INPUT {redact_secrets(uri)} cannot be placed: the graph has {count}; use --set instead")
    name = sources[0]
    old = graph.keys[name] if graph.kind(name) == kind else {}
    return graph.replace_stages({**graph.keys, name: {**old, "stage": kind, **keys}})


def with_outputs(
    document: Mapping[str, Any], outputs: Sequence[str], loader: StageLoader | None = None
) -> dict[str, Any]:
    """Return the document with the given outputs instead of its own.

    Outputs of drawn images take frames from the end of the graph, all others from before a last stage that draws. That
    stage is removed if no output is left behind it.
    """
    loader = loader or StageLoader()
    graph = Draft(document, loader)
    stages = {name: keys for name, keys in graph.keys.items() if graph.traits(name).role != "output"}
    used = {used for name in stages for used in graph.inputs(name)}
    ends = [name for name in stages if name not in used]
    if not ends or used - stages.keys():
        return dict(document)  # an unknown input: the check of the graph reports it better
    if len(ends) != 1:
        listed = ", ".join(map(redact_secrets, ends))
        raise ConfigError(f"OUTPUT cannot be placed: the graph ends in {listed}; name the outputs in the graph file")
    end = ends[0]
    draws = graph.traits(end).draws
    before: Any = stages[end].get("input", end) if draws else end
    added: dict[str, dict[str, Any]] = {}
    for number, output in enumerate(outputs):
        if output in outputs[:number]:
            raise ConfigError(f"OUTPUT {redact_secrets(output)}: is named twice")
        kind, keys = match_argument("output", output)
        images = traits_of(loader.load(kind)).images
        if draws and images == "undrawn":  # it draws in place of that stage: with its settings
            shared = {field.name for field in fields(loader.load(kind))}  # type: ignore[arg-type]
            keys = {**{key: value for key, value in stages[end].items() if key in shared}, **keys}
        name = kind if kind not in {**stages, **added} else f"{kind}{number + 1}"
        added[name] = {"stage": kind, "input": end if images == "drawn" else before, **keys}
    if draws and not any(keys["input"] == end for keys in added.values()):
        del stages[end]
    return graph.replace_stages({**stages, **added})


def total_frames(config: Config) -> int | None:
    """Return the number of frames that the sources will yield; None if unknown."""
    counts = [expected_frames(node.stage) for node in config.sources]
    return None if None in counts else sum(count or 0 for count in counts)


def argument_forms(role: Role) -> str:
    """Return the forms of a command-line INPUT (role source) or OUTPUT (role output), for help texts and errors."""
    return ", ".join(form for _, stage in classes_of(role) if (form := traits_of(stage).argument))


def match_argument(role: Role, text: str) -> tuple[str, dict[str, Any]]:
    """Return name and keys of the stage that accepts a command-line argument. Raises ConfigError if none does.

    Registered stages are asked in reverse: specific ones come after general ones.
    """
    if text.strip():  # an empty text would mean the working directory
        for name, stage in reversed([*classes_of(role)]):
            keys = parse_argument(stage, text)
            if keys is not None:
                return name, dict(keys)
    what = {"source": "input", "output": "output"}.get(role, role)
    problem = f"{what} {redact_secrets(text)!r} is not understood" if text.strip() else f"the {what} is empty"
    raise ConfigError(f"{problem}; allowed: {argument_forms(role)}")
