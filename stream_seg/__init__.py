"""stream_seg: real-time video segmentation as a graph of stages."""

from contextlib import suppress

with suppress(ImportError):  # who needs it says what is missing
    import cv2  # noqa: F401 - before PyAV, whose own libxcb would hang OpenCV's windows (PyAV issue 978)

__version__ = "0.1.0"
