"""stream_seg: real-time video segmentation as a graph of stages.

for frame in stream_seg.open("drive.mp4"):
    frame.image, frame.labels, frame.classes, frame.seq, frame.time_s

docs/python.md describes the API.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stream_seg.api.default_graph import FrameStream, open, run  # noqa: A004
    from stream_seg.api.images import ImageEngine, open_engine
    from stream_seg.api.pipeline import Pipeline
    from stream_seg.errors import ConfigError, NetworkError, OutputError, SourceError, StageError, StreamSegError
    from stream_seg.frame import Frame
    from stream_seg.runtime.report import Report

__version__ = "0.2.0"
__all__ = [
    "ConfigError",
    "Frame",
    "FrameStream",
    "ImageEngine",
    "NetworkError",
    "OutputError",
    "Pipeline",
    "Report",
    "SourceError",
    "StageError",
    "StreamSegError",
    "__version__",
    "open",
    "open_engine",
    "run",
]


class _OpenCVBeforePyAV:
    """Import OpenCV before PyAV, whose own libxcb would hang OpenCV's windows (PyAV issue 978)."""

    def find_spec(self, name: str, *_: object) -> None:
        """Find no module; the import of PyAV goes on with the other finders."""
        if name == "av":
            with suppress(ImportError):  # the module that needs OpenCV reports that it is missing
                import cv2  # noqa: F401


# Not imported here, and without importlib.abc: both would delay the first signal handler of the program.
sys.meta_path.insert(0, _OpenCVBeforePyAV())

_MODULES = {
    "api.default_graph": ("FrameStream", "open", "run"),
    "api.images": ("ImageEngine", "open_engine"),
    "api.pipeline": ("Pipeline",),
    "errors": ("ConfigError", "NetworkError", "OutputError", "SourceError", "StageError", "StreamSegError"),
    "frame": ("Frame",),
    "runtime.report": ("Report",),
}
"""The public names by the module that has them."""


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import stream_seg` stays fast."""
    from importlib import import_module

    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module 'stream_seg' has no attribute {name!r}")
    return getattr(import_module(f"stream_seg.{module}"), name)


def __dir__() -> list[str]:
    return __all__
