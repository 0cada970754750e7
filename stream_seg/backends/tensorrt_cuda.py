"""What `tensorrt_run` needs of CUDA and of the package: answers that are checked, the GPU's name, contexts."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from stream_seg.backends.tensorrt_api import module
from stream_seg.errors import NetworkError
from stream_seg.output import replace_file


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


class Kernels:
    """Where contexts come from. `tensorrt_rtx` compiles kernels when it first meets a shape, and can keep them."""

    def __init__(self, engine: Any, path: Path | None) -> None:
        self._engine, self._path = engine, path
        self._config = engine.create_runtime_config()
        self._cache: Any = None
        if hasattr(self._config, "create_runtime_cache"):
            # lazily compiled kernels would come after the graph has been captured
            strategy = module().DynamicShapesKernelSpecializationStrategy.EAGER
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy
            if path is not None:
                self._cache = self._config.create_runtime_cache()
                if path.is_file():
                    self._cache.deserialize(path.read_bytes())  # which refuses what does not fit this GPU and version
                self._config.set_runtime_cache(self._cache)

    def context(self) -> Any:
        return self._engine.create_execution_context(self._config)

    def keep(self) -> None:
        if self._cache is not None and self._path is not None:
            replace_file(self._path, bytes(self._cache.serialize()))
