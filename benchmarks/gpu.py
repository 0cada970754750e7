"""The road network on an NVIDIA GPU: TensorRT against torch and ONNX Runtime, with and without input and output.

Three ways, where a backend has them: `whole`, from pictures in this process's memory to labels there; `left`, the
labels stay on the GPU; `bare`, the network alone, on pictures that are on the GPU already. All in one process, in
turns, so that what else the machine does meets them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from surroundings import command, figures, finish, machine

from stream_seg.backends import onnxruntime, torch
from stream_seg.backends.engine import cheapest
from stream_seg.backends.tensorrt.api import module
from stream_seg.backends.tensorrt.backend import BATCH, graph_of, open_execution
from stream_seg.backends.tensorrt.build import build
from stream_seg.backends.tensorrt.cuda import gpu
from stream_seg.errors import NetworkError
from stream_seg.network.network import Network, open_network
from stream_seg.network.sidecar import parsed_size

Calls = dict[str, Callable[[], object]]


def main(
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the network's input.")] = "352x480",
    precision: Annotated[str, typer.Option(help="Of TensorRT: f32, fp16, int8, fp8. The others take fp16.")] = "fp16",
    output: Annotated[str, typer.Option(help="What is fetched: labels or scores.")] = "labels",
    seconds: Annotated[float, typer.Option(min=0.1, help="For each candidate and batch, in turns.")] = 5.0,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as JSON.")] = None,
) -> None:
    """Latency of one picture and throughput of eight, with and without input and output."""
    device, capability = gpu()  # refuses a machine without a GPU in one line
    network = open_network("road", size=parsed_size(size))
    facts: dict[str, Any] = {
        "machine": machine(),
        "gpu": {"name": device, "compute_capability": capability},
        "tensorrt": f"{module().__name__} {module().__version__}",
        "network": {"name": network.name, "size": network.size, "precision": precision, "output": output},
    }
    table = figures(f"{device}, {size}", "candidate", "batch", "p50 ms", "p99 ms", "pictures/s")
    for batch in (1, BATCH):
        images = np.random.default_rng(0).integers(0, 256, (batch, *network.size, 3), dtype=np.uint8)
        for name, times in in_turns(
            candidates(network, images, precision=precision, output=output), seconds=seconds
        ).items():
            p50, p99 = (float(np.percentile(times, share)) for share in (50, 99))
            facts.setdefault(f"batch_{batch}", {})[name] = {"p50_ms": p50, "p99_ms": p99, "count": len(times)}
            table.add_row(name, str(batch), f"{p50:.3f}", f"{p99:.3f}", f"{1000 * batch / p50:.0f}")
    alone = facts["batch_1"]
    facts["io_ratio"] = alone["tensorrt whole"]["p50_ms"] / alone["tensorrt bare"]["p50_ms"]
    table.add_row("tensorrt whole / bare", "1", f"{facts['io_ratio']:.2f}", "", "")
    finish(facts, [table], json_file)


def candidates(network: Network, images: np.ndarray[Any, Any], *, precision: str, output: str) -> Calls:
    """What is measured, by name, warm: each has run and captured its graphs."""
    _, graph = cheapest(graph_of(network, precision), output)
    plan = build(graph, precision=precision, size=network.size, batch=(1, BATCH), name=network.name)
    run = open_execution(plan, output=output, name=network.name)
    calls: Calls = {
        "tensorrt whole": lambda: run.infer(images),
        "tensorrt left": lambda: run.on_device(images),
        "tensorrt bare": lambda: run.again(len(images)),
    }
    for compiled in (False, True):
        engine = torch.open_engine(
            network, precision="fp16", threads=1, output=output, device="cuda", compiled=compiled
        )
        calls[f"torch {'compiled' if compiled else 'eager'} whole"] = partial(engine.infer, images)
        calls[f"torch {'compiled' if compiled else 'eager'} bare"] = torch_bare(
            network, images, output=output, compiled=compiled
        )
    try:
        other = onnxruntime.open_engine(network, precision="fp16", threads=1, output=output, device="cuda")
        calls["onnxruntime whole"] = lambda: [other.infer(images[i : i + 1]) for i in range(len(images))]
    except NetworkError as error:
        print(f"left out: {error}")  # the package of a CPU has no such provider
    for call in calls.values():
        for _ in range(10):
            call()
    return calls


def torch_bare(network: Network, images: np.ndarray[Any, Any], *, output: str, compiled: bool) -> Callable[[], object]:
    """The network alone in torch, fp16, on pictures that are on the GPU; waits until it is done."""
    import torch as library

    net = torch.module_of(cheapest(network.f32, output)[1], name=network.name).cuda()
    net = net.to(memory_format=library.channels_last)
    there = library.from_numpy(images).cuda()
    call = library.compile(net, mode="reduce-overhead") if compiled else net

    def bare() -> None:
        with library.inference_mode(), library.autocast("cuda", library.float16):
            call(there)
        library.cuda.synchronize()

    return bare


def in_turns(calls: Calls, *, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each call, the candidates taking turns of a tenth of their time."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(10):
        for name, call in calls.items():
            until = time.perf_counter() + seconds / 10
            while (began := time.perf_counter()) < until:
                call()
                times[name].append(1000 * (time.perf_counter() - began))
    return times


if __name__ == "__main__":
    command(main)
