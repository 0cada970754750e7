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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.engine import Images
from stream_seg.backends.tensorrt_api import logger, module
from stream_seg.backends.tensorrt_cuda import Kernels, checked
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


class Execution:
    """A deserialised plan. Not for two threads at once. Its memory goes with the last reference to it.

    `outputs` are those to fetch; `tensorrt_rtx` keeps in `runtime_cache` what it compiled for this GPU.
    """

    def __init__(self, plan: bytes, cuda: Any, *, outputs: tuple[str, ...], runtime_cache: Path | None = None) -> None:
        log = logger()
        log.complaints.clear()
        self._cuda = cuda
        self._runtime = module().Runtime(log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise NetworkError(f"tensorrt: the plan does not load: {log.complaint()}")
        self._kernels = Kernels(self._engine, runtime_cache)
        memory = ExitStack()
        weakref.finalize(self, memory.close)
        self._stream = int(checked(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))
        memory.callback(cuda.cudaStreamDestroy, self._stream)
        self._memory = memory
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        self.batch = int(self._engine.get_tensor_profile_shape("image", 0)[2][0])
        self._tensors = {name: self._allocated(name) for name in names}
        self._outputs = outputs
        self._contexts: dict[tuple[int, bool], Any] = {}
        self._graphs: dict[tuple[int, bool], Any] = {}

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of each output, one picture's."""
        return {name: self._tensors[name].host.shape[1:] for name in self._outputs}

    def infer(self, images: Images) -> dict[str, NDArray[Any]]:
        """The outputs of up to `batch` pictures, copied out of the pinned memory."""
        self._run(images, fetch=True)
        return {name: self._tensors[name].host[: len(images)].copy() for name in self._outputs}

    def on_device(self, images: Images) -> dict[str, OnDevice]:
        """The same, left on the GPU and finished there."""
        self._run(images, fetch=False)
        return {name: self._left(self._tensors[name], len(images)) for name in self._outputs}

    def again(self, count: int) -> None:
        """Compute the `count` pictures that are on the GPU once more, without moving anything: the bare network."""
        context = self._contexts[count, False]
        self._done(context.execute_async_v3(self._stream))
        checked(self._cuda.cudaStreamSynchronize(self._stream))

    def _run(self, images: Images, *, fetch: bool) -> None:
        count = len(images)
        np.copyto(self._tensors["image"].host[:count], images)
        if (count, fetch) in self._graphs:
            checked(self._cuda.cudaGraphLaunch(self._graphs[count, fetch], self._stream))
        else:
            context = self._contexts[count, fetch] = self._context(count)
            self._enqueue(context, count, fetch=fetch)  # the first run of a context allocates, and cannot be captured
            checked(self._cuda.cudaStreamSynchronize(self._stream))
            self._kernels.keep()
            capturable = getattr(
                context, "is_stream_capturable", None
            )  # `tensorrt` captures always, and has no such word
            if capturable is None or capturable(self._stream):
                self._graphs[count, fetch] = self._captured(context, count, fetch=fetch)
        checked(self._cuda.cudaStreamSynchronize(self._stream))

    def _context(self, count: int) -> Any:
        context = self._kernels.context()
        if context is None or not context.set_input_shape("image", (count, *self._tensors["image"].host.shape[1:])):
            raise RuntimeError(logger().complaint())
        for tensor in self._tensors.values():
            context.set_tensor_address(tensor.name, tensor.device)
        return context

    def _enqueue(self, context: Any, count: int, *, fetch: bool) -> None:
        cuda, picture = self._cuda, self._tensors["image"]
        there, back = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice, cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        source = picture.host.ctypes.data
        checked(cuda.cudaMemcpyAsync(picture.device, source, picture.bytes_of(count), there, self._stream))
        self._done(context.execute_async_v3(self._stream))
        for tensor in (self._tensors[name] for name in self._outputs if fetch):
            target = tensor.host.ctypes.data
            checked(cuda.cudaMemcpyAsync(target, tensor.device, tensor.bytes_of(count), back, self._stream))

    def _captured(self, context: Any, count: int, *, fetch: bool) -> Any:
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(cuda.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue(context, count, fetch=fetch)
        graph = checked(cuda.cudaStreamEndCapture(self._stream))
        executable = checked(cuda.cudaGraphInstantiate(graph, 0))
        checked(cuda.cudaGraphDestroy(graph))
        self._memory.callback(cuda.cudaGraphExecDestroy, executable)
        return executable

    def _allocated(self, name: str) -> _Tensor:
        shape = (self.batch, *tuple(self._engine.get_tensor_shape(name))[1:])
        if min(shape) < 1:
            raise NetworkError(f"tensorrt: the plan leaves the size of {name} open: {shape}")
        dtype = np.dtype(module().nptype(self._engine.get_tensor_dtype(name)))
        size = math.prod(shape) * dtype.itemsize
        pinned = int(checked(self._cuda.cudaMallocHost(size)))
        self._memory.callback(self._cuda.cudaFreeHost, pinned)
        device = int(checked(self._cuda.cudaMalloc(size)))
        self._memory.callback(self._cuda.cudaFree, device)
        host = np.frombuffer((ctypes.c_uint8 * size).from_address(pinned), dtype).reshape(shape)
        return _Tensor(name, host, device)

    def _left(self, tensor: _Tensor, count: int) -> OnDevice:
        return OnDevice(tensor.device, (count, *tensor.host.shape[1:]), tensor.host.dtype, self)

    def _done(self, enqueued: bool) -> None:
        if not enqueued:
            raise RuntimeError(logger().complaint())
