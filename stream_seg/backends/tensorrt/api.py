"""The package of TensorRT, under either of its names, and the two classes of its own that it wants to be given."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from stream_seg.backends.engine import one_line

MODULES = ("tensorrt", "tensorrt_rtx")
Progress = Callable[[str, int, int], None]
"""Called with a phase's name, the steps that are done, the steps that it has."""


def module() -> Any:
    """`tensorrt` or `tensorrt_rtx`, whichever is here. Raises ImportError where neither is."""
    for name in MODULES:
        if find_spec(name):
            return import_module(name)
    raise ImportError(f"neither {' nor '.join(MODULES)} is installed")


@cache
def logger() -> Any:
    """TensorRT's log, one for the process as it demands. It keeps errors for the sentence that refuses."""
    trt = module()

    class Log(trt.ILogger):  # type: ignore[misc, name-defined] # TensorRT takes its own class only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.complaints: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.complaints.append(message)

        def complaint(self) -> str:
            return one_line(RuntimeError(self.complaints[-1] if self.complaints else "no reason given"))

    return Log()


def monitor(progress: Progress) -> Any:
    """What tells `progress` how far a build is. `raised` holds what it raised, which ended the build."""
    trt = module()

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined] # TensorRT takes its own class only
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.raised: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                progress(phase_name, step + 1, self.steps[phase_name])
            except BaseException as error:  # noqa: BLE001 - Ctrl-C too: it must not fly through C++; `build` raises it
                self.raised = error
            return self.raised is None

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
