"""A simulated GPU: CUDA calls on this machine's memory, and plans that ONNX Runtime computes.

It keeps CUDA's order: enqueued work runs when the stream is synchronized, or is recorded while a graph is captured.
Memory has addresses, and freed memory is known.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort

Work = Callable[[], object]


class Status(IntEnum):
    cudaSuccess = 0  # noqa: N815 - CUDA's names
    cudaErrorMemoryAllocation = 2  # noqa: N815


class Cuda:
    """The part of `cuda.bindings.runtime` that an execution calls."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="upload", cudaMemcpyDeviceToHost="download")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, *, memory: int = 1 << 30) -> None:
        self.free_bytes = memory
        self.blocks: dict[int, Any] = {}
        self.queue: list[Work] = []
        self.capturing: list[Work] | None = None
        self.graphs: dict[int, list[Work]] = {}
        self.copies: list[tuple[str, int]] = []
        self.launches = 0

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if size > self.free_bytes:
            return Status.cudaErrorMemoryAllocation, None
        self.free_bytes -= size
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        block = self.blocks.pop(address)
        self.free_bytes += len(block)
        return (Status.cudaSuccess,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        self.blocks[7] = "stream"
        return Status.cudaSuccess, 7

    cudaStreamDestroy = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> tuple[Any, ...]:  # noqa: N802
        def copy() -> None:
            self.copies.append((kind, size))
            ctypes.memmove(target, source, size)

        return self.enqueue(copy)

    def enqueue(self, work: Work) -> tuple[Any, ...]:
        (self.queue if self.capturing is None else self.capturing).append(work)
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        for work in self.queue:
            work()
        self.queue.clear()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:  # noqa: N802
        self.capturing = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        graph, self.capturing = self.capturing, None
        return Status.cudaSuccess, graph

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[Any, ...]:  # noqa: N802
        self.graphs[len(self.graphs)] = graph
        self.blocks[-len(self.graphs)] = "graph"
        return Status.cudaSuccess, -len(self.graphs)

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[Any, ...]:  # noqa: N802
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaFree  # noqa: N815

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.launches += 1
        self.queue.extend(self.graphs[-graph - 1])
        return (Status.cudaSuccess,)


class Plan:
    """The part of a loaded plan that an execution uses. It computes an ONNX with any batch up to `most`."""

    def __init__(self, onnx: bytes, cuda: Cuda, *, most: int, outputs: dict[str, tuple[int, ...]]) -> None:
        self.session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.cuda, self.most = cuda, most
        image = tuple(self.session.get_inputs()[0].shape[1:])
        self.tensors = {"image": (np.uint8, image), **{name: (np.float32, s) for name, s in outputs.items()}}

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.tensors[name][1])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(n, *self.tensors[name][1]) for n in (1, 1, self.most)]

    @property
    def engine(self) -> Plan:
        return self

    def dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(self.tensors[name][0])

    def create_context(self) -> Context:
        return Context(self)


class Context:
    """An execution context: a shape, the addresses of the tensors, and the work to enqueue."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.shape, self.addresses = plan, (0,), dict[str, int]()

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        return shape[0] <= self.plan.most

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        def compute() -> None:
            count, arrays = self.shape[0], {name: self._array(name) for name in self.plan.tensors}
            names = [name for name in arrays if name != "image"]
            outputs = self.plan.session.run(names, {"image": arrays["image"][:count]})
            for name, output in zip(names, outputs, strict=True):
                arrays[name][:count] = output

        self.plan.cuda.enqueue(compute)
        return True

    def _array(self, name: str) -> Any:
        dtype, image_shape = self.plan.tensors[name]
        shape = (self.plan.most, *image_shape)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(self.addresses[name]), dtype).reshape(shape)
