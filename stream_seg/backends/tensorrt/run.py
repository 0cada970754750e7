"""Run a TensorRT plan: pinned memory, one stream, one CUDA graph for every batch size.

    images -> pinned memory -> GPU -> network -> GPU -> pinned memory -> result
              |<-------------- one captured graph ------------->|

TensorRT requires that a context be left alone once a graph was captured from it, so every batch size has its own.
CUDA is called through `cuda.bindings.runtime`, which is a parameter so that tests can simulate it.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_seg.backends.engine import Images
from stream_seg.backends.tensorrt.api import Plan, check_cuda, get_logger
from stream_seg.errors import NetworkError


@dataclass(frozen=True)
class _Tensor:
    """An input or output for the largest batch: pinned `host` memory (batch, ...) and the address of its GPU copy."""

    name: str
    host: NDArray[Any]
    device: int


class Execution:
    """A plan with its working memory, computing `output`. Not for two threads at once.

    Its GPU memory is freed with the last reference to it. Raises RuntimeError, NetworkError.
    """

    def __init__(self, plan: Plan, cuda: Any, *, output: str) -> None:
        self._plan, self._cuda = plan, cuda
        self._resources = ExitStack()
        weakref.finalize(self, self._resources.close)
        self._stream = int(check_cuda(cuda.cudaStreamCreateWithFlags(cuda.cudaStreamNonBlocking)))
        self._resources.callback(cuda.cudaStreamDestroy, self._stream)
        shapes = plan.engine.get_tensor_profile_shape("image", 0)
        self.least, self.batch = int(shapes[0][0]), int(shapes[2][0])
        self._image, self._output = self._allocate("image"), self._allocate(output)
        self._contexts: dict[int, Any] = {}
        self._graphs: dict[int, Any] = {}

    def infer(self, images: Images) -> NDArray[Any]:
        """Return the output of `least` to `batch` images, copied out of the pinned memory."""
        np.copyto(self._image.host[: len(images)], images)
        self._run(len(images))
        return self._output.host[: len(images)].copy()

    def _run(self, count: int) -> None:
        """Compute the first `count` images of the pinned memory."""
        if count in self._graphs:
            check_cuda(self._cuda.cudaGraphLaunch(self._graphs[count], self._stream))
        else:
            context = self._contexts[count] = self._plan.create_context()
            if not context.set_input_shape("image", (count, *self._image.host.shape[1:])):
                raise RuntimeError(get_logger().last_error())
            for tensor in (self._image, self._output):
                context.set_tensor_address(tensor.name, tensor.device)
            self._enqueue(context, count)  # the first run of a context allocates memory and cannot be captured
            check_cuda(self._cuda.cudaStreamSynchronize(self._stream))
            is_capturable = getattr(context, "is_stream_capturable", None)  # `tensorrt` lacks it, and always captures
            if is_capturable is None or is_capturable(self._stream):
                self._graphs[count] = self._capture(context, count)
        check_cuda(self._cuda.cudaStreamSynchronize(self._stream))

    def _enqueue(self, context: Any, count: int) -> None:
        kinds, image, output = self._cuda.cudaMemcpyKind, self._image, self._output
        self._copy(image.device, image.host.ctypes.data, image.host[:count].nbytes, kinds.cudaMemcpyHostToDevice)
        if not context.execute_async_v3(self._stream):
            raise RuntimeError(get_logger().last_error())
        self._copy(output.host.ctypes.data, output.device, output.host[:count].nbytes, kinds.cudaMemcpyDeviceToHost)

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        check_cuda(self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream))

    def _capture(self, context: Any, count: int) -> Any:
        cuda = self._cuda
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        check_cuda(cuda.cudaStreamBeginCapture(self._stream, mode))
        self._enqueue(context, count)
        graph = check_cuda(cuda.cudaStreamEndCapture(self._stream))
        executable = check_cuda(cuda.cudaGraphInstantiate(graph, 0))
        check_cuda(cuda.cudaGraphDestroy(graph))
        self._resources.callback(cuda.cudaGraphExecDestroy, executable)
        return executable

    def _allocate(self, name: str) -> _Tensor:
        shape = (self.batch, *tuple(self._plan.engine.get_tensor_shape(name))[1:])
        if min(shape) < 1:
            raise NetworkError(f"tensorrt: the plan leaves the size of {name} open: {shape}")
        dtype = self._plan.dtype(name)
        size = math.prod(shape) * dtype.itemsize
        pinned = int(check_cuda(self._cuda.cudaMallocHost(size)))
        self._resources.callback(self._cuda.cudaFreeHost, pinned)
        device = int(check_cuda(self._cuda.cudaMalloc(size)))
        self._resources.callback(self._cuda.cudaFree, device)
        host = np.frombuffer((ctypes.c_uint8 * size).from_address(pinned), dtype).reshape(shape)
        return _Tensor(name, host, device)
