"""Facts about this machine: CPU, GPUs, installed packages, video codecs, windows."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stream_seg.backends.engine import cpu_name
from stream_seg.backends.registry import BACKENDS, package_version
from stream_seg.errors import OutputError

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
DECODERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"h264": ("h264",), "hevc": ("hevc",), "av1": ("libdav1d", "libaom-av1")}
)
"""FFmpeg's names of the decoders that need no GPU, by codec."""
GPU_FIELDS = (("name", "memory.total", "driver_version", "compute_cap"), ("name", "memory.total", "driver_version"))
"""Queries for nvidia-smi; old versions do not know compute_cap."""


def describe_cpu() -> dict[str, Any]:
    """Return name, cores (those that this process may use) and features of the CPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"name": cpu_name(), "cores": cores, "features": cpu_features()}


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
    return {"toolkit": toolkit, "lack": None if toolkit else "this OpenCV has no windows; pip install opencv-python"}
