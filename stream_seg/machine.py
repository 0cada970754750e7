"""What this machine has: processor, GPUs, packages, codecs, a display."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stream_seg.backends.onnxruntime import cpu_name
from stream_seg.errors import OutputError

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
