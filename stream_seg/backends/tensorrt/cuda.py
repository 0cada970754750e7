"""What `tensorrt_run` needs of CUDA and of the package: checked answers, the GPU's name, a loaded plan."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from stream_seg.backends.tensorrt.api import logger, module
from stream_seg.errors import NetworkError
from stream_seg.files import replace_file


def checked(answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call, which answers (status, value) or (status,). Raises RuntimeError."""
    status, *values = answer
    if int(status):
        raise RuntimeError(f"CUDA: {status.name} ({int(status)})")
    return values[0] if values else None


def gpu() -> tuple[str, str]:
    """Name and compute capability ("8.9") of the GPU. Raises NetworkError where there is none, ImportError."""
    try:
        ctypes.CDLL("libcuda.so.1")  # a hundred times faster than CUDA's bindings, where there is no driver
    except OSError as error:
        raise NetworkError("tensorrt: no NVIDIA GPU: its driver is not installed (libcuda.so.1)") from error
    from cuda.bindings import runtime as cuda

    try:
        count = checked(cuda.cudaGetDeviceCount())
        said = checked(cuda.cudaGetDeviceProperties(0)) if count else None
    except RuntimeError as error:
        raise NetworkError(f"tensorrt: no NVIDIA GPU that works: {error}") from error
    if said is None:
        raise NetworkError("tensorrt: no NVIDIA GPU")
    return said.name.decode().rstrip("\0"), f"{said.major}.{said.minor}"


class Plan:
    """A plan as TensorRT has loaded it. `context` gives what computes; `engine` says what the tensors are.

    `tensorrt_rtx` compiles kernels when it first meets a number of pictures, and keeps them in `runtime_cache`.
    """

    def __init__(self, serialised: bytes, *, runtime_cache: Path | None = None) -> None:
        log = logger()
        log.complaints.clear()
        self._runtime = module().Runtime(log)
        self.engine = self._runtime.deserialize_cuda_engine(serialised)
        if self.engine is None:
            raise NetworkError(f"tensorrt: the plan does not load: {log.complaint()}")
        self._config, self._kept, self._path = self.engine.create_runtime_config(), None, runtime_cache
        if hasattr(self._config, "create_runtime_cache"):
            # kernels that are compiled later, while others work already, would miss the captured graph
            strategy = module().DynamicShapesKernelSpecializationStrategy.EAGER
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy
            if runtime_cache is not None:
                self._kept = self._config.create_runtime_cache()
                if runtime_cache.is_file():
                    self._kept.deserialize(runtime_cache.read_bytes())  # it refuses what does not fit GPU and version
                self._config.set_runtime_cache(self._kept)

    def context(self) -> Any:
        """An execution context. Raises RuntimeError, where memory is short for one."""
        context = self.engine.create_execution_context(self._config)
        if context is None:
            raise RuntimeError(logger().complaint())
        return context

    def dtype(self, tensor: str) -> np.dtype[Any]:
        """What numpy calls the type of a tensor."""
        found: np.dtype[Any] = np.dtype(module().nptype(self.engine.get_tensor_dtype(tensor)))
        return found

    def keep(self) -> None:
        """Write the runtime cache, where there is to be one. Raises OutputError."""
        if self._kept is not None and self._path is not None:
            replace_file(self._path, bytes(self._kept.serialize()))
