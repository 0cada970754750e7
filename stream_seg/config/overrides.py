"""From the command line to a graph: INPUT replaces the source of the graph file, every OUTPUT adds an output stage."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stream_seg.config.graph_file import Config
from stream_seg.errors import ConfigError, OutputError, SourceError
from stream_seg.files import STREAM, at_home, partial_path, refuse_unwritable
from stream_seg.redact import without_secrets
from stream_seg.schema.yaml import parse_yaml
from stream_seg.sources.images import picture_files
from stream_seg.sources.uri import parse
from stream_seg.stages.capture import Capture, expected_frames
from stream_seg.stages.registry import SINKS, SOURCES
from stream_seg.stages.synthetic import Synthetic, parse_synth

VIDEO_SUFFIXES = (".mp4", ".mkv")
OUTPUT_FORMS = (
    "a video (.mp4, .mkv), a table (.jsonl), a folder for label maps (masks/), "
    "the word window, or a page's address (http://127.0.0.1:8080)"
)


def default_document() -> dict[str, Any]:
    """The graph that runs without --config."""
    text = resources.files("stream_seg").joinpath("shipped/default.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = parse_yaml(text, where="default.yaml")
    return document


def with_input(document: Mapping[str, Any], uri: str) -> dict[str, Any]:
    """The document with its one source reading `uri`. Raises ConfigError where it has none or several."""
    stages = _stages(document)
    sources = [name for name, keys in stages.items() if _kind(name, keys) in SOURCES]
    if len(sources) != 1:
        count = f"the sources {', '.join(map(without_secrets, sources))}" if sources else "no source"
        raise ConfigError(f"INPUT {parse(uri).shown} cannot be placed: the graph has {count}; set its keys with --set")
    name = sources[0]
    old = stages[name]
    if parse(uri).kind == "synth":
        new = {"stage": "synthetic", **parse_synth(uri)}
    else:
        new = {"stage": "capture", **(old if _kind(name, old) == "capture" else {}), "uri": uri}
    return {**document, "stages": {**stages, name: new}}


def with_outputs(document: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
    """The document with the given outputs in the place of its own.

    Pictures are taken from the end of the graph; label maps, tables and pages from before the overlay; an overlay that
    nobody wants to see is left out. A page keeps a recording that goes nowhere else to the recording's own time.
    """
    stages = {name: keys for name, keys in _stages(document).items() if _kind(name, keys) not in SINKS}
    taken = {name for keys in stages.values() for name in _inputs(keys)}
    ends = [name for name in stages if name not in taken]
    if not ends or taken - stages.keys():
        return dict(document)  # an arrow that leads nowhere: the check of the graph says it better
    if len(ends) != 1:
        listed = ", ".join(map(without_secrets, ends))
        raise ConfigError(f"OUTPUT cannot be placed: the graph ends in {listed}; name the outputs in the graph file")
    end = ends[0]
    before: Any = stages[end].get("input", end) if _kind(end, stages[end]) == "overlay" else end
    added: dict[str, dict[str, Any]] = {}
    for number, output in enumerate(dict.fromkeys(outputs)):
        kind, keys = _sink(output)
        if kind == "serve":
            keys |= {"opacity": stages[end]["opacity"]} if before != end and "opacity" in stages[end] else {}
            keys |= {"pace": True} if len(outputs) == 1 and _recorded(stages) else {}
        pictures = kind in ("write", "show")
        name = kind if kind not in {**stages, **added} else f"{kind}{number + 1}"
        added[name] = {"stage": kind, "input": end if pictures else before, **keys}
    if before != end and not any(keys["input"] == end for keys in added.values()):
        del stages[end]
    return {**document, "stages": {**stages, **added}}


def refuse_plain(document: Mapping[str, Any], outputs: Sequence[str]) -> None:
    """Raises ConfigError where an https:// among the outputs became a page without a certificate. To be asked of the
    document with its settings: the certificate is one."""
    pages = {name: keys for name, keys in _stages(document).items() if _kind(name, keys) == "serve"}
    addresses = [output for output in dict.fromkeys(outputs) if "://" in output]
    for output, (name, keys) in zip(addresses, pages.items(), strict=False):  # in the order of `with_outputs`
        if urlsplit(output).scheme == "https" and keys.get("certfile") is None:
            wanted = f"--set {name}.certfile=CERT.pem --set {name}.keyfile=KEY.pem"
            raise ConfigError(f"output {output}: needs a certificate: {wanted}; without one write http://")


def refuse_overwriting(document: Mapping[str, Any], report_file: Path | None = None) -> None:
    """Raises OutputError where an output, the report or the traces would go into an input, or two of them into one
    file or folder; also where what a killed run left of an output, on which it would begin anew, is the input."""
    written = [*outputs_of(document)]
    traces = document.get("traces")
    if isinstance(traces, Mapping) and traces.get("file") is not None:
        written.append(("the traces", at_home(Path(str(traces["file"])))))
    if report_file is not None:
        refuse_unwritable(report_file)
        written.append(("the report", report_file))
    writers: dict[Path, str] = {}
    for name, path in written:
        first = writers.setdefault(partial_path(path), name)
        if first != name:
            raise OutputError(f"{path}: {first} and {name} would both write it; give each its own path")
    inputs = list(_inputs_on_disk(document))
    for _, path in written:
        if any(_same(path, read) for read in inputs):
            raise OutputError(f"{path}: is the input as well; choose another name for the output")
        partial = partial_path(path)
        if any(_same(partial, read) for read in inputs):
            raise OutputError(f"{path}: would grow in {partial.name}, which is the input; choose another name for it")


def outputs_of(document: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """What the graph writes: the name of the output stage, and its path for every stream."""
    stages = _stages(document)
    streams = [str(keys.get("stream", name)) for name, keys in stages.items() if _kind(name, keys) in SOURCES]
    return [
        (name, path)
        for name, keys in stages.items()
        if _kind(name, keys) in SINKS and "path" in keys
        for path in dict.fromkeys(at_home(Path(str(keys["path"]).replace(STREAM, stream))) for stream in streams)
    ]


def _inputs_on_disk(document: Mapping[str, Any]) -> Iterator[Path]:
    """The files that are read; of pictures their folders too, for label maps would lie among them."""
    for keys in _stages(document).values():
        source = parse(str(keys["uri"])) if "uri" in keys else None
        if source is not None and source.kind == "file":
            yield Path(source.address)
        if source is not None and source.kind == "images":
            with suppress(SourceError):  # it will be said where they are opened
                files = picture_files(source)
                yield from (*files, *{file.parent for file in files})


def _same(path: Path, other: Path) -> bool:
    """Whether both are there, as far as we may see, and are one file, by whatever name."""
    return os.path.exists(path) and os.path.exists(other) and path.samefile(other)


def is_live(config: Config) -> bool:
    """Whether any source is live: its frames come whether or not they are taken."""
    return any(
        stage.live if isinstance(stage, Capture) else isinstance(stage, Synthetic) and stage.paced
        for stage in (node.stage for node in config.nodes)
    )


def total_frames(config: Config) -> int | None:
    """How many frames the sources will give; None where that is not known."""
    total = 0
    for stage in (node.stage for node in config.nodes if node.kind in SOURCES):
        has = expected_frames(stage.uri) if isinstance(stage, Capture) and not stage.loop else None
        known = [frames for frames in (has, getattr(stage, "frames", None)) if frames is not None]
        if not known:
            return None
        total += min(known)
    return total


def _sink(output: str) -> tuple[str, dict[str, Any]]:
    if not output.strip():  # else the working directory, for pathlib
        raise ConfigError(f"the output is empty; an output is {OUTPUT_FORMS}")
    if "://" in output:
        return "serve", _address(output)
    suffix = Path(output).suffix.lower()
    if output == "window":
        return "show", {}
    if suffix in VIDEO_SUFFIXES:
        return "write", {"path": output}
    if suffix == ".jsonl":
        return "records", {"path": output}
    if output.endswith("/") or Path(output).is_dir():
        return "masks", {"path": output}
    raise ConfigError(f"output {without_secrets(output)!r}: not understood; an output is {OUTPUT_FORMS}")


def _recorded(stages: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether no source is live."""
    sources = [keys for name, keys in stages.items() if _kind(name, keys) in SOURCES]
    return not any(parse(str(keys["uri"])).live if "uri" in keys else keys.get("paced") for keys in sources)


def _address(output: str) -> dict[str, Any]:
    """The keys of a page at http://HOST:PORT; https:// needs `certfile` and `keyfile`: see `refuse_plain`."""
    try:
        parts = urlsplit(output)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    plain = parts.path in ("", "/") and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in ("http", "https") or not parts.hostname or port is None or not plain:
        raise ConfigError("an output with :// is a page's address, http://HOST:PORT, for example http://127.0.0.1:8080")
    return {"host": parts.hostname, "port": port}


def _stages(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    stages = document.get("stages")
    if not isinstance(stages, dict) or not all(isinstance(keys, dict | None) for keys in stages.values()):
        raise ConfigError("stages: expected a mapping from names to keys, for example `segment: {input: capture}`")
    return {str(name): dict(keys or {}) for name, keys in stages.items()}


def _kind(name: str, keys: Mapping[str, Any]) -> str:
    return str(keys.get("stage", name))


def _inputs(keys: Mapping[str, Any]) -> list[str]:
    inputs = keys.get("input", [])
    return [str(name) for name in inputs] if isinstance(inputs, list) else [str(inputs)]
