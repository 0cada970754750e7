"""What this machine has, and whether the main job would run on it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from stream_seg.backends.choose import chosen, installed, open_engine
from stream_seg.backends.onnxruntime import cpu_name
from stream_seg.errors import StreamSegError
from stream_seg.network import open_network

PACKAGES = ("openvino", "onnxruntime", "torch", "tensorrt", "opencv-python", "av", "numpy", "pyzmq")
CPU_FLAGS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "VNNI",
    "avx512_bf16": "bf16",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bf16",
}


def examined() -> tuple[dict[str, Any], str | None]:
    """What was found, and the one thing to do where the main job could not run (None where it can).

    Keys: python, cpu {name, features}, gpus [name], versions {package: version or null}, ffmpeg, h264,
    backend {name, why}, engine {network, backend, precision, device}, first_frame_ms, frame_ms.
    """
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "cpu": {"name": cpu_name(), "features": cpu_features()},
        "gpus": gpus(),
        "versions": {package: _version(package) for package in PACKAGES},
    }
    try:
        found |= _video() | _engine()
    except StreamSegError as error:
        return found, str(error)
    except ImportError as error:
        return found, f"{error}; install again: pip install --force-reinstall stream-seg"
    return found, None if found["h264"] else "FFmpeg has no libx264, which mp4 needs: pip install --force-reinstall av"


def cpu_features(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The instructions that matter to a network, of those that this CPU has. Empty where /proc does not say."""
    if not cpuinfo.is_file():
        return []
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return [name for flag, name in CPU_FLAGS.items() if flag in flags]


def gpus() -> list[str]:
    """NVIDIA GPUs by name and driver, as nvidia-smi lists them; none where it is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    asked = [command, "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 - its full path
    except (subprocess.SubprocessError, OSError):
        return []
    return said.stdout.strip().splitlines()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _video() -> dict[str, Any]:
    import av

    return {"ffmpeg": av.ffmpeg_version_info, "h264": "libx264" in av.codecs_available}


def _engine() -> dict[str, Any]:
    """The backend that `auto` takes, and a frame through the network that is shipped."""
    name, why = chosen("auto", present=installed())
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
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("Python", found["python"])
    features = ", ".join(found["cpu"]["features"]) or "no features known"
    table.add_row("CPU", escape(f"{found['cpu']['name']} ({features})"))
    table.add_row("GPU", "\n".join(found["gpus"]) or "none (nvidia-smi lists none)")
    for package, number in found["versions"].items():
        table.add_row(package, number or "not installed")
    if "ffmpeg" in found:
        table.add_row("FFmpeg", f"{found['ffmpeg']}, {'with' if found['h264'] else 'without'} libx264")
    if "engine" in found:
        engine = found["engine"]
        table.add_row("backend", f"{found['backend']['name']} ({found['backend']['why']})")
        frame = f"first frame after {found['first_frame_ms']:.0f} ms, then {found['frame_ms']:.1f} ms a frame"
        table.add_row("network", f"{engine['network']}, {engine['precision']}: {frame}")
    table.add_row("verdict", "[green]the main job can run[/]" if todo is None else f"[red]to do:[/] {escape(todo)}")
    return table
