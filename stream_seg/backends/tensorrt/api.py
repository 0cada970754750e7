"""The TensorRT package under either of its names, its two callback classes, and the CUDA calls of an execution."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from stream_seg.backends.engine import summarize_error
from stream_seg.errors import NetworkError

PACKAGES = ("tensorrt", "tensorrt_rtx")
"""Two packages with one API."""
OnStep = Callable[[str, int, int], None]
"""Called during a build with the name of a phase, its completed steps and its total steps."""


def import_tensorrt() -> Any:
    """Return the module `tensorrt` or `tensorrt_rtx`, whichever is installed. Raises ImportError."""
    for name in PACKAGES:
        if find_spec(name):
            return import_module(name)
    raise ImportError(f"neither {' nor '.join(PACKAGES)} is installed")


@cache
def get_logger() -> Any:
    """Return TensorRT's logger, one per process as TensorRT requires. It keeps errors for `last_error`."""
    trt = import_tensorrt()

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined] # TensorRT accepts subclasses of its own class only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(message)

        def last_error(self) -> str:
            return summarize_error(RuntimeError(self.errors[-1] if self.errors else "no reason given"))

    return Logger()


def create_monitor(on_step: OnStep) -> Any:
    """Return a progress monitor that calls `on_step`. An exception of `on_step` ends the build; `error` holds it."""
    trt = import_tensorrt()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined] # as Logger
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.error: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                on_step(phase_name, step + 1, self.steps[phase_name])
            except BaseException as error:  # noqa: BLE001 - Ctrl-C too: it must not pass through C++; `build_plan` raises it
                self.error = error
            return self.error is None

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()


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
