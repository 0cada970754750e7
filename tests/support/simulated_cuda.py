"""A GPU that is not there: CUDA's calls on this machine's memory, and plans that ONNX Runtime computes.

It keeps CUDA's order: what is enqueued runs when the stream is waited for, or is noted down while a graph is captured;
memory has addresses, and what was freed is known.
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
    """As much of `cuda.bindings.runtime` as an execution calls."""

    cudaStreamNonBlocking = 1  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="there", cudaMemcpyDeviceToHost="back")  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self, *, memory: int = 1 << 30) -> None:
        self.left = memory
        self.blocks: dict[int, Any] = {}
        self.queue: list[Work] = []
        self.capturing: list[Work] | None = None
        self.graphs: dict[int, list[Work]] = {}
        self.copied: list[tuple[str, int]] = []
        self.launched = 0

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        if size > self.left:
            return Status.cudaErrorMemoryAllocation, None
        self.left -= size
        block = ctypes.create_string_buffer(size)
        self.blocks[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc  # noqa: N815

    def cudaFree(self, address: int) -> tuple[Any, ...]:  # noqa: N802
        freed = self.blocks.pop(address)
        self.left += len(freed)
        return (Status.cudaSuccess,)

    cudaFreeHost = cudaFree  # noqa: N815

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:  # noqa: N802
        self.blocks[7] = "stream"
        return Status.cudaSuccess, 7

    cudaStreamDestroy = cudaFree  # noqa: N815

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: str, stream: int) -> tuple[Any, ...]:  # noqa: N802
        def copy() -> None:
            self.copied.append((kind, size))
            ctypes.memmove(to, source, size)

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
        captured, self.capturing = self.capturing, None
        return Status.cudaSuccess, captured

    def cudaGraphInstantiate(self, graph: list[Work], flags: int) -> tuple[Any, ...]:  # noqa: N802
        self.graphs[len(self.graphs)] = graph
        self.blocks[-len(self.graphs)] = "graph"
        return Status.cudaSuccess, -len(self.graphs)

    def cudaGraphDestroy(self, graph: list[Work]) -> tuple[Any, ...]:  # noqa: N802
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaFree  # noqa: N815

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.launched += 1
        self.queue.extend(self.graphs[-graph - 1])
        return (Status.cudaSuccess,)


class Plan:
    """A loaded plan in as much as an execution asks it. It computes an ONNX of any batch up to `most`."""

    def __init__(self, onnx: bytes, cuda: Cuda, *, most: int, outputs: dict[str, tuple[int, ...]]) -> None:
        self.session = ort.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.cuda, self.most = cuda, most
        picture = tuple(self.session.get_inputs()[0].shape[1:])
        self.tensors = {"image": (np.uint8, picture), **{name: (np.float32, s) for name, s in outputs.items()}}
        self.num_io_tensors = len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, *self.tensors[name][1])

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(n, *self.tensors[name][1]) for n in (1, 1, self.most)]

    @property
    def engine(self) -> Plan:
        return self

    def dtype(self, name: str) -> np.dtype[Any]:
        return np.dtype(self.tensors[name][0])

    def context(self) -> Context:
        return Context(self)

    def keep(self) -> None:
        pass


class Context:
    """An execution context: shape and addresses as they were told, work as it is enqueued."""

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
            count, at = self.shape[0], {n: self._array(n) for n in self.plan.tensors}
            names = [name for name in at if name != "image"]
            for name, said in zip(names, self.plan.session.run(names, {"image": at["image"][:count]}), strict=True):
                at[name][:count] = said

        self.plan.cuda.enqueue(compute)
        return True

    def _array(self, name: str) -> Any:
        dtype, shape = self.plan.tensors[name]
        whole = (self.plan.most, *shape)
        size = int(np.prod(whole)) * np.dtype(dtype).itemsize
        return np.frombuffer((ctypes.c_uint8 * size).from_address(self.addresses[name]), dtype).reshape(whole)
