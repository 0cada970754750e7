"""A TensorRT plan at work: pinned memory, one stream, a CUDA graph for every number of pictures.

    pictures -> pinned memory -> GPU -> network -> GPU -> pinned memory -> result
                |<-------------- one captured graph ------------->|

TensorRT asks that a context be left alone once a graph was captured from it, so every number of pictures has its own.
CUDA is called through `cuda.bindings.runtime`, a parameter here: a test passes another.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.engine import Images
from stream_seg.backends.tensorrt.api import logger
from stream_seg.backends.tensorrt.cuda import Plan, checked
from stream_seg.errors import NetworkError


@dataclass(frozen=True)
class OnDevice:
    """An output where the GPU left it. `torch.as_tensor(it, device="cuda")` and CuPy take it without a copy.

    The next inference of the same execution writes over it.
    """

    pointer: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    owner: Execution

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.pointer, False),
            "strides": None,
        }


@dataclass(frozen=True)
class _Tensor:
    """An input or output for as many pictures as the plan takes: pinned `host` (most, ...) and its twin on the GPU."""

    name: str
    host: NDArray[Any]
    device: int

    def bytes_of(self, count: int) -> int:
        return int(self.host[:count].nbytes)


@dataclass(frozen=True)
class Way:
    """One shape of inference: how many pictures, whether they are sent, whether the outputs are fetched."""

    count: int
    send: bool
    fetch: bool


class Execution:
    """A plan with memory to work in, for the `outputs` that are wanted. Not for two threads at once.

    What it holds on the GPU goes with the last reference to it. Raises RuntimeError, NetworkError.
    """

    def __init__(self, plan: Plan, cuda: Any, *, outputs: tuple[str, ...]) -> None:
        self._plan, self._cuda = plan, cuda
        memory = ExitStack()
        weakref.finalize(self, memory.close)
        self._stream = int(checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))
        memory.callback(cuda.cudaStreamDestroy, self._stream)
        self._memory = memory
        engine = plan.engine
        self.batch = int(engine.get_tensor_profile_shape("image", 0)[2][0])
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._tensors = {name: self._allocated(name) for name in names}
        self._outputs = outputs
        self._contexts: dict[Way, Any] = {}
        self._graphs: dict[Way, Any] = {}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of each output, one picture's."""
        return {name: self._tensors[name].host.shape[1:] for name in self._outputs}

    def infer(self, images: Images) -> dict[str, NDArray[Any]]:
        """The outputs of up to `batch` pictures, copied out of the pinned memory."""
        np.copyto(self._tensors["image"].host[: len(images)], images)
        self._run(Way(len(images), send=True, fetch=True))
        return {name: self._tensors[name].host[: len(images)].copy() for name in self._outputs}

    def on_device(self, images: Images) -> dict[str, OnDevice]:
        """The same, left on the GPU and finished there."""
        np.copyto(self._tensors["image"].host[: len(images)], images)
        self._run(Way(len(images), send=True, fetch=False))
        return {name: self._left(self._tensors[name], len(images)) for name in self._outputs}

    def again(self, count: int) -> None:
        """Compute the `count` pictures that are on the GPU once more and move nothing: the bare network, to measure."""
        self._run(Way(count, send=False, fetch=False))

    def _run(self, way: Way) -> None:
        if way in self._graphs:
            checked(self._cuda.cudaGraphLaunch(self._graphs[way], self._stream))
        else:
            context = self._contexts[way] = self._context(way.count)
            self._enqueue(context, way)  # the first run of a context allocates, and cannot be captured
            checked(self._cuda.cudaStreamSynchronize(self._stream))
            self._plan.keep()
            capturable = getattr(context, "is_stream_capturable", None)  # `tensorrt` lacks the word, and captures
            if capturable is None or capturable(self._stream):
                self._graphs[way] = self._captured(context, way)
        checked(self._cuda.cudaStreamSynchronize(self._stream))

    def _context(self, count: int) -> Any:
        context = self._plan.context()
        if not context.set_input_shape("image", (count, *self._tensors["image"].host.shape[1:])):
            raise RuntimeError(logger().complaint())
        for tensor in self._tensors.values():
            context.set_tensor_address(tensor.name, tensor.device)
        return context

    def _enqueue(self, context: Any, way: Way) -> None:
        kinds = self._cuda.cudaMemcpyKind
        for tensor in [self._tensors["image"]] if way.send else []:
            self._copy(tensor.device, tensor.host.ctypes.data, tensor.bytes_of(way.count), kinds.cudaMemcpyHostToDevice)
        if not context.execute_async_v3(self._stream):
            raise RuntimeError(logger().complaint())
        for tensor in [self._tensors[name] for name in self._outputs] if way.fetch else []:
            self._copy(tensor.host.ctypes.data, tensor.device, tensor.bytes_of(way.count), kinds.cudaMemcpyDeviceToHost)

    def _copy(self, to: int, source: int, size: int, kind: Any) -> None:
        checked(self._cuda.cudaMemcpyAsync(to, source, size, kind, self._stream))

    def _captured(self, context: Any, way: Way) -> Any:
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(cuda.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue(context, way)
        graph = checked(cuda.cudaStreamEndCapture(self._stream))
        executable = checked(cuda.cudaGraphInstantiate(graph, 0))
        checked(cuda.cudaGraphDestroy(graph))
        self._memory.callback(cuda.cudaGraphExecDestroy, executable)
        return executable

    def _allocated(self, name: str) -> _Tensor:
        shape = (self.batch, *tuple(self._plan.engine.get_tensor_shape(name))[1:])
        if min(shape) < 1:
            raise NetworkError(f"tensorrt: the plan leaves the size of {name} open: {shape}")
        dtype = self._plan.dtype(name)
        size = math.prod(shape) * dtype.itemsize
        pinned = int(checked(self._cuda.cudaMallocHost(size)))
        self._memory.callback(self._cuda.cudaFreeHost, pinned)
        device = int(checked(self._cuda.cudaMalloc(size)))
        self._memory.callback(self._cuda.cudaFree, device)
        host = np.frombuffer((ctypes.c_uint8 * size).from_address(pinned), dtype).reshape(shape)
        return _Tensor(name, host, device)

    def _left(self, tensor: _Tensor, count: int) -> OnDevice:
        return OnDevice(tensor.device, (count, *tensor.host.shape[1:]), tensor.host.dtype, self)
