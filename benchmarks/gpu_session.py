"""Measure the shipped road network on an NVIDIA GPU: one command, at most 8 minutes, one JSON file.

    python benchmarks/gpu_session.py                                # writes benchmarks/results/GPU-NAME.json
    python benchmarks/gpu_session.py --device cpu --out dry.json    # the same steps without a GPU, as a rehearsal

Each part (one backend in one precision) runs in its own process: a crash, a hang or a missing package ends that part
alone. The JSON is written after every figure; its list `not_run` names what did not run, with the reason. Required are
numpy and one backend; without OpenCV the input is noise and no streams are measured. `gpu_figures.py` says how each
figure is measured.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from gpu_backends import ABOUT, ROOT, SIZE, Runner, open_engine, open_onnxruntime, open_tensorrt, open_torch
from gpu_figures import Job, Send, compute_reference, cores, describe, draw_frames, measure

END_S = 2
"""Seconds of the budget that are kept for the end."""
PACKAGES = ("numpy", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx", "openvino", "stream-seg")


class Part(NamedTuple):
    """A part: it starts only if `need_s` seconds of the budget are left, and is stopped after `limit_s`."""

    work: Callable[[Send, Job], None]
    need_s: float
    limit_s: float
    needs_cuda: bool


def backend(opener: Callable[..., Runner], *, need_s: float = 25, needs_cuda: bool = True, **keys: str) -> Part:
    """Return the part that measures a backend."""
    return Part(partial(measure, opener=partial(opener, **keys)), need_s, 4 * need_s, needs_cuda)


PARTS = {
    "frames": Part(draw_frames, 5, 60, needs_cuda=False),
    "labels on the CPU": Part(compute_reference, 5, 60, needs_cuda=False),
    "torch f32": backend(open_torch, precision="f32", needs_cuda=False),
    "torch fp16, CUDA graph": backend(open_torch, precision="fp16", mode="graph"),
    "tensorrt fp16": backend(open_tensorrt, precision="fp16", need_s=40),
    "onnxruntime f32": backend(open_onnxruntime, precision="f32", needs_cuda=False),
    "tensorrt int8": backend(open_tensorrt, precision="int8", need_s=40),
    "torch fp16": backend(open_torch, precision="fp16"),
    "torch fp16, autocast": backend(open_torch, precision="fp16", mode="autocast"),
    "onnxruntime fp16": backend(open_onnxruntime, precision="fp16"),
    "stream_seg's engine: torch fp16": backend(open_engine, backend="torch", precision="fp16"),
    "stream_seg's engine: onnxruntime fp16": backend(open_engine, backend="onnxruntime", precision="fp16"),
    "tensorrt f32": backend(open_tensorrt, precision="f32", need_s=40),
    "tensorrt fp8": backend(open_tensorrt, precision="fp8", need_s=40),
    "torch fp16, compiled": backend(open_torch, precision="fp16", mode="compiled", need_s=90),
}
"""By name, the most wanted first: the last ones are skipped where time is short."""


def run_apart(
    function: Callable[..., None], arguments: tuple[Any, ...], *, limit_s: float, receive: Send
) -> str | None:
    """Call function(connection, *arguments) in a new process and pass the pairs that it sends to `receive`.

    Return why it did not end by itself with exit code 0 within `limit_s`; None where it did.
    """
    context = multiprocessing.get_context("spawn")  # a process that was forked could not use CUDA
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=function, args=(sender, *arguments), daemon=True)
    deadline = time.monotonic() + limit_s
    process.start()
    sender.close()
    try:
        while receiver.poll(max(0.0, deadline - time.monotonic())):
            receive(*receiver.recv())
        return f"stopped after {limit_s:.0f} s, its share of the budget"
    except EOFError:
        process.join(10)
        return None if process.exitcode == 0 else f"its process ended with exit code {process.exitcode}"
    finally:
        process.kill()
        process.join(5)


def run_part(sender: Connection, name: str, job: Job) -> None:
    """Run a part in this process and send its figures, or the error that ended it."""
    try:
        PARTS[name].work(lambda key, value: sender.send((key, value)), job)
    except Exception as error:  # noqa: BLE001 - becomes the part's entry
        sender.send(("not_run", describe(error)))


def list_not_run(where: str, entry: Any) -> Iterator[dict[str, str]]:
    """Yield every part and figure of `entry` that did not run, with the reason."""
    if isinstance(entry, dict):
        if "not_run" in entry:
            yield {"part": where, "reason": entry["not_run"]}
        for key, value in entry.items():
            yield from list_not_run(f"{where}: {key}" if where else key, value)


def find_gpu() -> dict[str, str] | None:
    """Return name, compute capability and versions of the first NVIDIA GPU, by the driver alone; None without one."""
    try:
        cuda = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    name, (device, major, minor, number) = ctypes.create_string_buffer(100), (ctypes.c_int() for _ in range(4))
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    cuda.cuDriverGetVersion(ctypes.byref(number))
    gpu = {"name": name.value.decode(), "compute_capability": f"{major.value}.{minor.value}"}
    gpu["cuda_of_driver"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    fields = "driver_version,memory.total,clocks.max.sm,power.limit,utilization.gpu"
    try:
        command = ["nvidia-smi", "-i", "0", f"--query-gpu={fields}", "--format=csv,noheader"]
        line = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return gpu | {"driver_version": f"unknown: {describe(error)}"}
    return gpu | dict(zip(fields.split(","), (text.strip() for text in line.split(",")), strict=False))


def describe_machine(gpu: dict[str, str] | None) -> dict[str, Any]:
    """Return GPU, processor, load before the start and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "gpu": gpu,
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": cores(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def write_report(path: Path, report: dict[str, Any]) -> None:
    """Write the report as JSON, so that the file is whole at every moment."""
    report["not_run"] = list(list_not_run("", report["parts"]))
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def shorten(value: Any) -> str:
    """Return a figure as a progress line shows it."""
    if not isinstance(value, dict):
        return str(value)
    cells = {
        key: f"{cell['p50_ms']} ms" if isinstance(cell, dict) and "p50_ms" in cell else cell
        for key, cell in value.items()
    }
    return ", ".join(f"{key} {cell}" for key, cell in cells.items())


def main() -> None:
    """Run every part within the budget."""
    start = time.monotonic()
    parser = argparse.ArgumentParser(description="Measure the shipped road network on an NVIDIA GPU.")
    parser.add_argument("--budget-s", type=float, default=480, help="seconds for everything (default: 480)")
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds for each figure (default: 1.5)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a rehearsal without a GPU")
    parser.add_argument("--out", type=Path, help="the JSON file (default: benchmarks/results/GPU-NAME.json)")
    options = parser.parse_args()
    gpu = find_gpu() if options.device == "cuda" else None
    if gpu is None and options.device == "cuda":
        sys.exit("gpu_session.py: no NVIDIA GPU that CUDA's driver can use; --device cpu rehearses without one")
    slug = re.sub(r"[^a-z0-9]+", "-", gpu["name"].lower()).strip("-") if gpu else "cpu"
    path: Path = options.out or ROOT / "benchmarks" / "results" / f"{slug}.json"
    if path.exists():
        sys.exit(f"gpu_session.py: {path} exists; remove it, or choose another --out")
    parts: dict[str, dict[str, Any]] = {name: {"not_run": "not reached"} for name in PARTS}
    report: dict[str, Any] = {
        "command": "python benchmarks/gpu_session.py",
        "budget_s": options.budget_s,
        "seconds_per_figure": options.seconds,
        "machine": describe_machine(gpu),
        "network": {"name": "road", "size": SIZE, "sha256": ABOUT["sha256"]},
        "parts": parts,
    }

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:4.0f} s of {options.budget_s:.0f}] {text}", flush=True)

    with TemporaryDirectory() as folder:
        job = Job(options.device, options.seconds, Path(folder))
        for name, part in PARTS.items():
            remaining = options.budget_s - END_S - (time.monotonic() - start)

            def receive(key: str, value: Any, name: str = name) -> None:
                parts[name][key] = value
                report["elapsed_s"] = round(time.monotonic() - start, 1)
                write_report(path, report)
                say(f"{name}: {key}: {shorten(value)}")

            parts[name] = {}
            if part.needs_cuda and options.device != "cuda":
                receive("not_run", "needs CUDA")
            elif remaining < part.need_s:
                receive("not_run", f"skipped: out of time ({remaining:.0f} s left, {part.need_s:.0f} needed)")
            else:
                say(name)
                limit_s = min(part.limit_s, remaining)
                reason = run_apart(run_part, (name, job), limit_s=limit_s, receive=receive)
                if reason:
                    receive("not_run", reason)
    say(f"written: {path}")


if __name__ == "__main__":
    main()
