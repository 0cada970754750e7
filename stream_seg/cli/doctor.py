"""What this machine has, and whether the main job would run on it."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from stream_seg import __version__
from stream_seg.backends.onnxruntime import cpu_name
from stream_seg.backends.registry import BACKENDS, chosen, installed
from stream_seg.engines.cache import default_folder, entries
from stream_seg.engines.cache_entry import Entry
from stream_seg.engines.open import open_engine
from stream_seg.errors import OutputError, StreamSegError
from stream_seg.network.network import open_network

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


PACKAGES = (
    *("openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "torch", "nncf"),
    *("opencv-python", "av", "numpy", "numba", "pyzmq"),
)
CPU_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
}
DECODERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"h264": ("h264",), "hevc": ("hevc",), "av1": ("libdav1d", "libaom-av1")}
)
"""By codec, what FFmpeg calls those that need no GPU."""
GPU_FIELDS = (("name", "memory.total", "driver_version", "compute_cap"), ("name", "memory.total", "driver_version"))
"""What nvidia-smi is asked for; an old one does not know the last."""


def cpu() -> dict[str, Any]:
    """name, cores (those that this process may use), features."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": cpu_name(), "cores": cores, "features": cpu_features()}


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The instructions that matter to a network, of those that this CPU has. Empty where /proc does not say."""
    if not cpuinfo.is_file():
        return []
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return list(dict.fromkeys(name for flag, name in CPU_FLAGS.items() if flag in flags))


def gpus() -> list[dict[str, str]]:
    """NVIDIA GPUs as nvidia-smi lists them: name, memory, driver, compute_capability. None where it is missing or
    fails."""
    for asked in GPU_FIELDS:
        said = _nvidia_smi(f"--query-gpu={','.join(asked)}", "--format=csv,noheader")
        if said is not None:
            keys = ("name", "memory", "driver", "compute_capability")
            return [dict(zip(keys, line.split(", "), strict=False)) for line in said.strip().splitlines()]
    return []


def cuda() -> str | None:
    """The newest CUDA that the driver runs, as nvidia-smi says it."""
    found = re.search(r"CUDA Version:\s*([\d.]+)", _nvidia_smi() or "")
    return found[1] if found else None


def _nvidia_smi(*arguments: str) -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    try:
        done = subprocess.run([command, *arguments], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - its full path
    except (subprocess.SubprocessError, OSError):
        return None
    return done.stdout


def versions() -> dict[str, str | None]:
    """Of each package of `PACKAGES`; None for one that is not installed."""
    return {package: _version(package) for package in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def codecs() -> dict[str, Any]:
    """ffmpeg (its version), decode [h264, hevc, av1, those that it can], h264 (whether libx264 encodes it)."""
    import av

    decode = [codec for codec, names in DECODERS.items() if any(name in av.codecs_available for name in names)]
    return {"ffmpeg": av.ffmpeg_version_info, "decode": decode, "h264": "libx264" in av.codecs_available}


def window() -> dict[str, str | None]:
    """toolkit (what OpenCV draws windows with; None for a build without), lack (why none can be shown now)."""
    import cv2

    from stream_seg.stages.show import require_display

    toolkit = cv2.currentUIFramework() or None
    try:
        require_display()
    except OutputError as error:
        return {"toolkit": toolkit, "lack": str(error).removeprefix("no window can be shown: ")}
    return {"toolkit": toolkit, "lack": None if toolkit else "this OpenCV has no windows; pip install opencv-python"}
