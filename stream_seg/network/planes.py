"""Outputs of an ONNX with one channel: masks and label maps, in any order of axes that exporters write."""

from __future__ import annotations

from collections.abc import Sequence

from stream_seg.network.onnx_builder import OnnxBuilder

Shape = Sequence[int | None]


def find_plane(shape: Shape) -> tuple[int | None, int | None, int | None] | None:
    """Return (N, H, W) of an output with one channel, None if it has several or another number of axes.

    (N, 1, H, W), (N, H, W, 1), (N, H, W), (H, W, 1) and (H, W) are such outputs; no image is a single column.
    """
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        height, width = shape[2:] if shape[1] == 1 else shape[1:3]
        return shape[0], height, width
    if len(shape) == 3:
        return (1, shape[0], shape[1]) if shape[2] == 1 else (shape[0], shape[1], shape[2])
    return (1, shape[0], shape[1]) if len(shape) == 2 and None not in shape else None


def add_plane(add: OnnxBuilder, name: str, shape: Shape) -> str:
    """Add the (N, H, W) of an output for which `find_plane` returns a shape. Return its name."""
    if len(shape) == 4:
        return add.drop_axis(name, 1 if shape[1] == 1 else 3)
    if len(shape) == 3 and shape[2] != 1:
        return name
    return add.insert_axis(name if len(shape) == 2 else add.drop_axis(name, 2), 0)
