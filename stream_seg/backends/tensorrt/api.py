"""The TensorRT package under either of its names, and the two callback classes that it asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from stream_seg.backends.engine import summarize_error

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
