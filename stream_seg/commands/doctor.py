"""What this machine has, and whether the main job would run on it."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Collection
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from stream_seg import __version__
from stream_seg.backends.cache import default_folder, entries
from stream_seg.backends.choose import open_engine
from stream_seg.backends.entry import Entry
from stream_seg.backends.table import BACKENDS, chosen, installed
from stream_seg.errors import StreamSegError
from stream_seg.machine import codecs, cpu, cuda, gpus, versions, window
from stream_seg.network import open_network

NO_X264 = "FFmpeg has no libx264, which mp4 needs: pip install --force-reinstall av"
NO_TENSORRT = "pip install '.[tensorrt]', so that the GPU can be used"


def examined(*, present: Collection[str] | None = None) -> tuple[dict[str, Any], str | None]:
    """What was found, and the one thing to do where the main job could not run (None where it can).

    Keys: stream_seg, python, cpu {name, cores, features}, gpus [{name, memory, driver, compute_capability}], cuda,
    versions {package: version or null}, lacks {backend: why it cannot work here}, cache {folder, engines, bytes, doubts
    [sentence]}, window {toolkit, lack}, ffmpeg, decode [codec], h264 (can be written), backend
    {name, why}, engine {network, backend, precision, device}, first_frame_ms, frame_ms. Those after cache are left out
    where something before them failed. `present` are the backends to choose from, if not those installed.
    """
    found: dict[str, Any] = {
        "stream_seg": __version__,
        "python": platform.python_version(),
        "cpu": cpu(),
        "gpus": gpus(),
        "cuda": cuda(),
        "versions": versions(),
        "lacks": _lacks(),
        "cache": _cache(),
    }
    try:
        found["window"] = window()
        found |= codecs()
        found |= _engine(installed() if present is None else present)
    except StreamSegError as error:
        return found, str(error)
    except ImportError as error:
        return found, f"{error}; install again: pip install --force-reinstall ."
    return found, None if found["h264"] else NO_X264


def _lacks() -> dict[str, str]:
    """Of each backend that cannot work here, why."""
    here = installed()
    said = {
        name: backend.lack() or f"not installed: {backend.install}"
        for name, backend in BACKENDS.items()
        if name not in here
    }
    return {name: re.sub(f"^(is |cannot work here: |{name}: )+", "", reason) for name, reason in said.items()}


def _cache() -> dict[str, Any]:
    """What has been built, and what of it would not be loaded."""
    folder = default_folder()
    try:
        found = [entry for _, entry in entries(folder)]
    except StreamSegError as error:
        return {"folder": str(folder), "engines": 0, "bytes": 0, "doubts": [str(error)]}
    built = [entry for entry in found if isinstance(entry, Entry)]
    return {
        "folder": str(folder),
        "engines": len(built),
        "bytes": sum(entry.bytes for entry in built),
        "doubts": [str(entry) for entry in found if not isinstance(entry, Entry)],
    }


def _engine(present: Collection[str]) -> dict[str, Any]:
    """The backend that `auto` takes, and a frame through the network that is shipped."""
    name, why = chosen("auto", present=present)
    began = time.perf_counter()
    with open_engine(open_network("road")) as engine:
        opened = time.perf_counter()
        engine.infer(np.zeros((1, *engine.spec.size, 3), np.uint8))
        ended = time.perf_counter()
        info = engine.spec.info
    return {
        "backend": {"name": name, "why": why},
        "engine": {
            "network": info.network,
            "backend": info.backend,
            "precision": info.precision,
            "device": info.device,
        },
        "first_frame_ms": round(1000 * (opened - began), 1),
        "frame_ms": round(1000 * (ended - opened), 1),
    }


def as_table(found: dict[str, Any], todo: str | None) -> Table:
    """The same for a terminal, on one screen; what was not reached is left out."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, said in _lines(found):
        table.add_row(name, escape(said))
    table.add_row("verdict", "[green]the main job can run[/]" if todo is None else f"[red]to do:[/] {escape(todo)}")
    return table


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    has = found["versions"]
    lines = [
        ("stream-seg", f"{found['stream_seg']}, Python {found['python']}"),
        ("CPU", _cpu(found["cpu"])),
        *(("GPU", gpu) for gpu in _gpus(found)),
        ("TensorRT", _tensorrt(found)),
        ("OpenVINO", has["openvino"] or "not installed"),
        ("ONNX Runtime", has["onnxruntime-gpu"] or has["onnxruntime"] or "not installed"),
        ("torch", f"{has['torch']}, nncf {has['nncf'] or 'not installed'}" if has["torch"] else "not installed"),
    ]
    if "window" in found:
        lack = found["window"]["lack"]
        shown = f"windows by {found['window']['toolkit']}" if lack is None else f"no window: {lack}"
        lines.append(("OpenCV", f"{has['opencv-python'] or 'version unknown'}; {shown}"))
    if "ffmpeg" in found:
        encodes = "encodes h264" if found["h264"] else "does not encode h264 (no libx264)"
        decodes = f"decodes {' '.join(found['decode'])}"
        lines.append(("FFmpeg", f"{found['ffmpeg']}, PyAV {has['av']}; {decodes}; {encodes}"))
    if "engine" in found:
        engine = found["engine"]
        lacks = "".join(f"; not {name}: {lack}" for name, lack in found["lacks"].items())
        lines.append(("backend", f"auto takes {found['backend']['name']} ({found['backend']['why']}){lacks}"))
        speed = f"first frame after {found['first_frame_ms']:.0f} ms, then {found['frame_ms']:.1f} ms a frame"
        lines.append(("network", f"{engine['network']}, {engine['precision']}: {speed}"))
    lines.append(("engines", _built(found["cache"])))
    return lines


def _built(cache: dict[str, Any]) -> str:
    kept = f"{cache['engines']} built, {cache['bytes'] / 1e6:.0f} MB" if cache["engines"] else "none built yet"
    doubts = f"; {len(cache['doubts'])} not loaded: {cache['doubts'][0]}" if cache["doubts"] else ""
    return f"{kept}, in {cache['folder']}{doubts}"


def _cpu(has: dict[str, Any]) -> str:
    features = list(has["features"])
    if features and not any(name.startswith("AMX") for name in features):
        features.append("no AMX")
    return f"{has['name']}, {has['cores']} cores; {', '.join(features) or 'its instructions are not known'}"


def _gpus(found: dict[str, Any]) -> list[str]:
    return [
        f"{gpu['name']}, {gpu['memory']}, compute capability {gpu.get('compute_capability', 'unknown')}; "
        f"driver {gpu['driver']}, CUDA {found['cuda'] or 'unknown'}"
        for gpu in found["gpus"]
    ] or ["none (nvidia-smi lists none)"]


def _tensorrt(found: dict[str, Any]) -> str:
    has = {name: found["versions"][name] for name in ("tensorrt", "tensorrt-rtx") if found["versions"][name]}
    if not has:
        return f"not installed; {NO_TENSORRT}" if found["gpus"] else "not installed"
    named = ", ".join(f"{name} {number}" for name, number in has.items())
    return named if found["gpus"] else f"{named}; builds engines, has no GPU here to run them"
