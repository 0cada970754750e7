"""CUDA and TensorRT calls that an execution needs: status checks, the GPU's name, a loaded plan."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from stream_seg.backends.tensorrt.api import get_logger, import_tensorrt
from stream_seg.errors import NetworkError


def check_cuda(result: tuple[Any, ...]) -> Any:
    """Return the value of a CUDA call, which returns (status, value) or (status,). Raises RuntimeError."""
    status, *values = result
    if int(status):
        raise RuntimeError(f"CUDA: {status.name} ({int(status)})")
    return values[0] if values else None


def find_gpu() -> tuple[str, str]:
    """Return name and compute capability ("8.9") of the GPU. Raises NetworkError where there is none; ImportError."""
    try:
        ctypes.CDLL("libcuda.so.1")  # where there is no driver, a hundred times faster than CUDA's bindings
    except OSError as error:
        raise NetworkError("tensorrt: no NVIDIA GPU: its driver is not installed (libcuda.so.1)") from error
    from cuda.bindings import runtime as cuda

    try:
        count = check_cuda(cuda.cudaGetDeviceCount())
        properties = check_cuda(cuda.cudaGetDeviceProperties(0)) if count else None
    except RuntimeError as error:
        raise NetworkError(f"tensorrt: no working NVIDIA GPU: {error}") from error
    if properties is None:
        raise NetworkError("tensorrt: no NVIDIA GPU")
    return properties.name.decode().rstrip("\0"), f"{properties.major}.{properties.minor}"


class Plan:
    """A plan loaded by TensorRT; `engine` describes its tensors."""

    def __init__(self, plan: bytes) -> None:
        log = get_logger()
        log.errors.clear()
        self._runtime = import_tensorrt().Runtime(log)
        self.engine = self._runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise NetworkError(f"tensorrt: the plan does not load: {log.last_error()}")
        self._config = self.engine.create_runtime_config()
        if hasattr(self._config, "dynamic_shapes_kernel_specialization_strategy"):
            # tensorrt_rtx compiles kernels at the first run of a batch size; compiled lazily, in the background, they
            # would miss the captured graph
            strategy = import_tensorrt().DynamicShapesKernelSpecializationStrategy.EAGER
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy

    def create_context(self) -> Any:
        """Return an execution context. Raises RuntimeError where memory is short."""
        context = self.engine.create_execution_context(self._config)
        if context is None:
            raise RuntimeError(get_logger().last_error())
        return context

    def dtype(self, tensor: str) -> np.dtype[Any]:
        """Return the numpy type of a tensor."""
        dtype: np.dtype[Any] = np.dtype(import_tensorrt().nptype(self.engine.get_tensor_dtype(tensor)))
        return dtype
