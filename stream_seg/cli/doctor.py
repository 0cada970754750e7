"""`stream-seg doctor`: report what this machine has, and check that the main job would run."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from stream_seg import __version__
from stream_seg.backends.choose import available_backends, find_missing, pick_backend
from stream_seg.backends.cpu import count_cores, cpu_name
from stream_seg.backends.registry import BACKENDS, Backend, package_version
from stream_seg.engines.cache import cache_folder, read_entries
from stream_seg.engines.open import open_engine
from stream_seg.errors import OutputError, StreamSegError
from stream_seg.installation import install_hint, reinstall_hint
from stream_seg.network.network import open_network

PACKAGES = ("onnxruntime-gpu", "nncf", "opencv-python", "av", "numpy", "numba", "pyzmq")
"""Distributions to report besides those of the backends."""
CPU_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
}
DECODERS = {"h264": ("h264",), "hevc": ("hevc",), "av1": ("libdav1d", "libaom-av1")}
"""FFmpeg's names of the decoders that need no GPU, by codec."""
GPU_FIELDS = (("name", "memory.total", "driver_version", "compute_cap"), ("name", "memory.total", "driver_version"))
"""Queries for nvidia-smi; old versions do not know compute_cap."""


def examine(*, available: Collection[str] | None = None) -> tuple[dict[str, Any], str | None]:
    """Return the facts, and the one thing to do where the main job could not run, None where it can.

    Keys: stream_seg, python, cpu {name, cores, features}, gpus [{name, memory, driver, compute_capability}], cuda,
    versions {package: version or null}, lacks {backend: why it cannot work here}, cache {folder, engines, bytes, doubts
    [message]}, window {toolkit, lack}, ffmpeg, decode [codec], h264 (can be encoded), backend {name, why},
    engine {network, backend, precision, device}, first_frame_ms, frame_ms. Those after `cache` are missing where an
    earlier one failed. `available` are the backends to choose from, by default those that work here.
    """
    facts: dict[str, Any] = {
        "stream_seg": __version__,
        "python": platform.python_version(),
        "cpu": {"name": cpu_name(), "cores": count_cores(), "features": cpu_features()},
        "gpus": list_gpus(),
        "cuda": cuda_version(),
        "versions": package_versions(),
        "lacks": {name: reason for name in BACKENDS if (reason := find_missing(name))},
        "cache": _examine_cache(),
    }
    try:
        facts["window"] = check_window()
        facts |= list_codecs()
        facts |= _time_engine(available_backends() if available is None else available)
    except StreamSegError as error:
        return facts, str(error)
    except ImportError as error:
        return facts, f"{error}; install again: {reinstall_hint()}"
    return facts, None if facts["h264"] else f"FFmpeg has no libx264, which mp4 needs: {reinstall_hint('av')}"


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """Return the instruction sets of this CPU that speed up networks; empty where /proc is missing."""
    if not cpuinfo.is_file():
        return []
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return list(dict.fromkeys(name for flag, name in CPU_FLAGS.items() if flag in flags))


def list_gpus() -> list[dict[str, str]]:
    """Return name, memory, driver and compute_capability of each NVIDIA GPU; empty where nvidia-smi fails."""
    for fields in GPU_FIELDS:
        output = _run_nvidia_smi(f"--query-gpu={','.join(fields)}", "--format=csv,noheader")
        if output is not None:
            keys = ("name", "memory", "driver", "compute_capability")
            return [dict(zip(keys, line.split(", "), strict=False)) for line in output.strip().splitlines()]
    return []


def cuda_version() -> str | None:
    """Return the newest CUDA version that the driver supports, according to nvidia-smi."""
    match = re.search(r"CUDA Version:\s*([\d.]+)", _run_nvidia_smi() or "")
    return match[1] if match else None


def _run_nvidia_smi(*arguments: str) -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        process = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - its full path
    except (subprocess.SubprocessError, OSError):
        return None
    return process.stdout


def package_versions() -> dict[str, str | None]:
    """Return the version of each package of the backends and of PACKAGES, None for one that is not installed."""
    packages = (name.replace("_", "-") for backend in BACKENDS.values() for name in backend.packages)
    return {package: package_version(package) for package in (*packages, *PACKAGES)}


def list_codecs() -> dict[str, Any]:
    """Return ffmpeg (its version), decode (codecs that it decodes) and h264 (True if libx264 can encode)."""
    import av

    decode = [codec for codec, names in DECODERS.items() if any(name in av.codecs_available for name in names)]
    return {"ffmpeg": av.ffmpeg_version_info, "decode": decode, "h264": "libx264" in av.codecs_available}


def check_window() -> dict[str, str | None]:
    """Return toolkit (of OpenCV's windows; None for a build without) and lack (why no window can be shown now)."""
    import cv2

    from stream_seg.stages.show import require_display

    toolkit = cv2.currentUIFramework() or None
    try:
        require_display()
    except OutputError as error:
        return {"toolkit": toolkit, "lack": str(error).removeprefix("cannot show a window: ")}
    lack = None if toolkit else f"this OpenCV has no windows: {reinstall_hint('opencv-python')}"
    return {"toolkit": toolkit, "lack": lack}


def _examine_cache() -> dict[str, Any]:
    folder = cache_folder()
    try:
        entries, faults = read_entries(folder)
    except StreamSegError as error:
        return {"folder": str(folder), "engines": 0, "bytes": 0, "doubts": [str(error)]}
    size, doubts = sum(entry.bytes for entry in entries), [str(fault) for fault in faults.values()]
    return {"folder": str(folder), "engines": len(entries), "bytes": size, "doubts": doubts}


def _time_engine(available: Collection[str]) -> dict[str, Any]:
    """Return the backend that `auto` picks, and the times of the shipped network on it."""
    name, why = pick_backend("auto", available=available)
    began = time.perf_counter()
    with open_engine(open_network("road")) as engine:
        opened = time.perf_counter()
        engine.infer(np.zeros((1, *engine.spec.size, 3), np.uint8))
        ended = time.perf_counter()
    return {
        "backend": {"name": name, "why": why},
        "engine": asdict(engine.spec.info),
        "first_frame_ms": round(1000 * (opened - began), 1),
        "frame_ms": round(1000 * (ended - opened), 1),
    }


def make_table(facts: dict[str, Any], todo: str | None) -> Table:
    """Return the facts of `examine` as a table that fits on one screen."""
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in _rows(facts):
        table.add_row(name, Text(text))
    do = Text.assemble(("to do:", "red"), f" {todo}")
    table.add_row("verdict", Text("the main job can run", "green") if todo is None else do)
    return table


def _rows(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    versions, cpu, cache = facts["versions"], facts["cpu"], facts["cache"]
    yield "stream-seg", f"{facts['stream_seg']}, Python {facts['python']}"
    amx = "" if any(name.startswith("AMX") for name in cpu["features"]) else ", no AMX"
    features = ", ".join(cpu["features"]) + amx if cpu["features"] else "instruction sets unknown"
    yield "CPU", f"{cpu['name']}, {cpu['cores']} cores; {features}"
    for gpu in facts["gpus"]:
        capability = f"compute capability {gpu.get('compute_capability', 'unknown')}"
        software = f"driver {gpu['driver']}, CUDA {facts['cuda'] or 'unknown'}"
        yield "GPU", f"{gpu['name']}, {gpu['memory']}, {capability}; {software}"
    if not facts["gpus"]:
        yield "GPU", "none (nvidia-smi lists none)"
    for backend in BACKENDS.values():
        yield backend.title, _describe_backend(backend, facts)
    yield "NNCF", versions["nncf"] or f"not installed; int8 of other networks needs it: {install_hint('[quantize]')}"
    if "window" in facts:
        lack = facts["window"]["lack"]
        window = f"windows by {facts['window']['toolkit']}" if lack is None else f"no window: {lack}"
        yield "OpenCV", f"{versions['opencv-python'] or 'version unknown'}; {window}"
    if "ffmpeg" in facts:
        encodes = "encodes h264" if facts["h264"] else "does not encode h264 (no libx264)"
        yield "FFmpeg", f"{facts['ffmpeg']}, PyAV {versions['av']}; decodes {' '.join(facts['decode'])}; {encodes}"
    if "engine" in facts:
        engine = facts["engine"]
        lacks = "".join(f"; not {name}: {reason}" for name, reason in facts["lacks"].items())
        yield "backend", f"auto picks {facts['backend']['name']} ({facts['backend']['why']}){lacks}"
        speed = f"first frame after {facts['first_frame_ms']:.0f} ms, then {facts['frame_ms']:.1f} ms per frame"
        yield "network", f"{engine['network']}, {engine['precision']}: {speed}"
    count = f"{cache['engines']} built, {cache['bytes'] / 1e6:.0f} MB" if cache["engines"] else "none built yet"
    doubts = f"; {len(cache['doubts'])} not loaded: {cache['doubts'][0]}" if cache["doubts"] else ""
    yield "engines", f"{count}, in {cache['folder']}{doubts}"


def _describe_backend(backend: Backend, facts: dict[str, Any]) -> str:
    packages = (name.replace("_", "-") for name in backend.packages)
    versions = {name: version for name in packages if (version := facts["versions"].get(name))}
    if not versions:
        hint = f"; to use the GPU: {backend.install_hint()}" if backend.needs_gpu and facts["gpus"] else ""
        return f"not installed{hint}"
    named = len(backend.packages) > 1
    text = ", ".join(f"{name} {version}" if named else version for name, version in versions.items())
    if not backend.needs_gpu or facts["gpus"]:
        return text
    return f"{text}; no GPU here to run engines{', only to build them' if backend.compiler else ''}"
