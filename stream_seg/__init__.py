"""stream_seg: real-time video segmentation as a graph of stages."""

__version__ = "0.1.0"
